"""A small IMAP4rev1 server over asyncio: what a client needs that fetches mail, and no more.

It keeps to RFC 3501 where it matters to such a client: login before folders, a folder before mails, literals, flags,
UIDs; UID MOVE by RFC 6851, ID by RFC 2971. Everything that it was asked is recorded, without passwords.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

HOST: Final = "127.0.0.1"
_CAPABILITIES: Final = "IMAP4rev1 UIDPLUS MOVE ID"


@dataclass
class Mail:
    uid: int
    raw: bytes
    flags: set[str] = field(default_factory=set)
    date: str = "20-Nov-2026 12:00:00 +0800"


@dataclass
class ImapServer:
    """`needs_id`: refuse folders to a client that has not said who it is, as NetEase does."""

    username: str = "service@upay.example"
    password: str = "made-up"
    needs_id: bool = False
    port: int = 0
    folders: dict[str, list[Mail]] = field(default_factory=lambda: {"INBOX": [], "Done": []})
    asked: list[str] = field(default_factory=list)
    connections: int = 0

    def add(self, raw: bytes, folder: str = "INBOX") -> Mail:
        mail = Mail(1 + sum(map(len, self.folders.values())), raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        self.folders[folder].append(mail)
        return mail

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[ImapServer]:
        server = await asyncio.start_server(self._serve, HOST, port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        session = _Session(self, writer)
        writer.write(b"* OK ready\r\n")
        try:
            while not session.is_over and (line := await reader.readline()):
                session.answer(line.decode().rstrip("\r\n"))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


class _Session:
    def __init__(self, server: ImapServer, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._writer = writer
        self._is_known = self._has_said_who = False
        self._folder: list[Mail] | None = None
        self.is_over = False

    def answer(self, line: str) -> None:
        tag, _, rest = line.partition(" ")
        command, _, arguments = rest.partition(" ")
        command = command.upper()
        if command == "UID":
            verb, _, arguments = arguments.partition(" ")
            command = f"UID {verb.upper()}"
        self._server.asked.append(command if command == "LOGIN" else f"{command} {arguments}".strip())
        done = self._do(command, arguments)
        self._writer.write(f"{tag} {done}\r\n".encode())

    def _say(self, line: str) -> None:
        self._writer.write(f"* {line}\r\n".encode())

    def _do(self, command: str, arguments: str) -> str:
        if command == "CAPABILITY":
            self._say(f"CAPABILITY {_CAPABILITIES}")
            return "OK done"
        if command == "LOGOUT":
            self._say("BYE")
            self.is_over = True
            return "OK done"
        if command == "LOGIN":
            given = shlex.split(arguments)
            self._is_known = given == [self._server.username, self._server.password]
            return "OK done" if self._is_known else "NO wrong"
        if not self._is_known:
            return "NO log in first"
        if command == "ID":
            self._has_said_who = True
            self._say("ID NIL")
            return "OK done"
        if command == "SELECT":
            return self._select(shlex.split(arguments)[0])
        if self._folder is None:
            return "BAD select a folder first"
        return self._with_folder(self._folder, command, arguments)

    def _select(self, name: str) -> str:
        if self._server.needs_id and not self._has_said_who:
            return "NO unsafe login"
        if name not in self._server.folders:
            return "NO no such folder"
        self._folder = self._server.folders[name]
        self._say(f"{len(self._folder)} EXISTS")
        return "OK [READ-WRITE] done"

    def _with_folder(self, folder: list[Mail], command: str, arguments: str) -> str:
        if command == "UID SEARCH":
            if arguments.upper() != "UNSEEN":
                return "BAD only UNSEEN is searched here"
            found = " ".join(str(mail.uid) for mail in folder if r"\Seen" not in mail.flags)
            self._say(f"SEARCH {found}".strip())
            return "OK done"
        uid, _, what = arguments.partition(" ")
        mails = [(number, mail) for number, mail in enumerate(folder, 1) if mail.uid == int(uid)]
        for number, mail in mails:
            if command == "UID FETCH":
                self._fetch(number, mail, what)
            elif command == "UID STORE":
                mail.flags |= set(re.findall(r"\\\w+", what))
                self._say(f"{number} FETCH (UID {mail.uid} FLAGS ({' '.join(sorted(mail.flags))}))")
            elif command == "UID MOVE":
                self._server.folders[shlex.split(what)[0]].append(mail)
                folder.remove(mail)
                self._say(f"{number} EXPUNGE")
            else:
                return "BAD unknown command"
        return "OK done"

    def _fetch(self, number: int, mail: Mail, what: str) -> None:
        if "BODY.PEEK[]" in what:
            self._writer.write(f"* {number} FETCH (UID {mail.uid} BODY[] {{{len(mail.raw)}}}\r\n".encode())
            self._writer.write(mail.raw + b")\r\n")
            return
        if "BODY[]" in what:
            mail.flags.add(r"\Seen")  # RFC 3501, 6.4.5: only PEEK leaves it unread
        self._say(f'{number} FETCH (UID {mail.uid} RFC822.SIZE {len(mail.raw)} INTERNALDATE "{mail.date}")')
