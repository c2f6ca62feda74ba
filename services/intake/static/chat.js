// A customer's chat. Everything that comes from the server is written with textContent; nothing is ever parsed as HTML.
// What was not accepted is kept, for this tab, and sent again; ids make that harmless.

const BRAND = location.pathname.split("/").at(-2);
const UNSENT_KEY = `switchyard.unsent.${BRAND}`; // sessionStorage: ends with the tab
const VISITOR_KEY = `switchyard.visitor.${BRAND}`; // localStorage: a visitor who comes back finds his chat
const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 20_000;
const ACCEPT_MS = 15_000;
const PING_MS = 25_000;
const SILENCE_MS = 60_000; // two pings without an answer
const TOKEN_MS = 15_000;
const KEPT_MS = 2_000;
const CONFIRM_MS = 4_000;
const WRONG_TOKEN = 4401;
const PAGE_ENDED = 4000;

const WORDS = {
  en: {
    title: "Customer service", messages: "Messages", greeting: "Write to us. We answer here, also when you come back later.",
    write: "Your message", send: "Send", close: "Close chat", cancel: "Cancel", editing: "You are changing your message",
    secrets: "Never send passwords, codes or full card numbers.",
    live: "online", connecting: "connecting", lost: "offline",
    lostBanner: "No connection. What you write is kept and sent as soon as it is back.",
    login: "Please log in to chat with us.",
    sending: "sending …", waiting: "not sent yet, will try again", sent: "sent", refused: "not accepted",
    edited: "edited", deleted: "message deleted", notDone: "change not accepted",
    edit: "Edit", remove: "Delete", sure: "Really delete?", discard: "Discard",
    you: "You", us: "Customer service", automatic: "Automatic message",
  },
  zh: {
    title: "在线客服", messages: "消息", greeting: "请在此留言，我们会在这里回复，您稍后回来也能看到。",
    write: "输入消息", send: "发送", close: "关闭聊天", cancel: "取消", editing: "正在修改消息",
    secrets: "请勿发送密码、验证码或完整卡号。",
    live: "在线", connecting: "连接中", lost: "离线",
    lostBanner: "网络已断开。您写的内容会保留，恢复后自动发送。",
    login: "请先登录，再与客服聊天。",
    sending: "发送中……", waiting: "未发送，将自动重试", sent: "已发送", refused: "未被接收",
    edited: "已修改", deleted: "消息已删除", notDone: "修改未被接收",
    edit: "修改", remove: "删除", sure: "确定删除？", discard: "移除",
    you: "我", us: "客服", automatic: "自动消息",
  },
};

const parameters = new URLSearchParams(location.search);
const asked = (parameters.get("lang") || navigator.language).toLowerCase();
const language = asked.startsWith("zh") ? "zh" : "en";
const words = WORDS[language];
const framed = parameters.get("framed"); // by widget.js: "token" where the site knows its customers, else "yes"
const byId = (id) => document.getElementById(id);

const state = {
  connection: "connecting", // or "live", "lost"
  needsLogin: false,
  customer: null, // id, once the server has told it
  entries: [], // as the server has them, oldest first
  unsent: [], // frames that are not accepted yet, in their order
  refused: new Map(), // message_id -> the frame that was not accepted
  editing: null, // id of the message that the composer changes
  isOpen: framed === null,
  unread: 0,
};
let socket = null;
let inFlight = null; // the frame that waits for its answer
let accepting; // the timer of the frame that waits for its answer
let pausing; // the timer that ends a pause
let pausedUntil = 0; // ms since the epoch: the server asked us to wait
let token = null;

class NeedsLogin extends Error {}

// --- what is kept -------------------------------------------------------------------------------------------------

// A browser that blocks third parties lets a frame keep nothing: then the page around keeps it for us.
const memory = new Map();

function stored(area, key) {
  try {
    return JSON.parse(window[area].getItem(key));
  } catch {
    return memory.get(key) ?? null;
  }
}

function store(area, key, value) {
  try {
    if (value === null) window[area].removeItem(key);
    else window[area].setItem(key, JSON.stringify(value));
  } catch {
    memory.set(key, value);
    tellParent({ switchyard: "keep", key, value });
  }
}

// By customer: who logs in next in this tab does not send what another has written.
function keepUnsent() {
  const all = stored("sessionStorage", UNSENT_KEY) ?? {};
  all[state.customer ?? ""] = state.unsent;
  if (state.customer) delete all[""];
  store("sessionStorage", UNSENT_KEY, all);
}

function becomes(customer) {
  if (state.customer === customer) return;
  const all = stored("sessionStorage", UNSENT_KEY) ?? {};
  const written = state.customer === null ? state.unsent : []; // before it was known who writes
  state.customer = customer;
  state.entries = [];
  state.refused.clear();
  state.unsent = [...(all[customer] ?? []), ...written];
  keepUnsent();
}

// --- drawing ------------------------------------------------------------------------------------------------------

const rows = new Map(); // id -> its elements

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// The chat as the customer means it: what the server has, with his changes on their way, then what is on its way.
function shown() {
  const entries = state.entries.map((entry) => ({ ...entry, state: entry.sender === "customer" ? "sent" : "" }));
  const known = new Map(entries.map((entry) => [entry.id, entry]));
  for (const frame of [...state.refused.values(), ...state.unsent]) {
    const isRefused = state.refused.has(frame.message_id);
    const stage = isRefused ? "refused" : frame === inFlight ? "sending" : state.connection === "live" && Date.now() >= pausedUntil ? "sending" : "waiting";
    const changed = known.get(frame.edits ?? frame.deletes);
    if (changed) {
      if (isRefused) changed.notDone = true;
      else if (frame.deletes) Object.assign(changed, { is_deleted: true, text: "", attachments: [], state: stage });
      else Object.assign(changed, { is_edited: true, text: frame.text, state: stage });
    } else if (!frame.edits && !frame.deletes && !known.has(frame.message_id)) {
      const entry = { id: frame.message_id, sender: "customer", text: frame.text, at: frame.sent_at, attachments: [], state: stage };
      known.set(entry.id, entry);
      entries.push(entry);
    }
  }
  return entries;
}

function clock(at) {
  const time = new Date(at);
  const isToday = time.toDateString() === new Date().toDateString();
  const day = isToday ? {} : { month: "short", day: "numeric" };
  // The reader's own way of writing a time, where he reads this language.
  const locale = navigator.language.startsWith(language) ? navigator.language : language;
  return new Intl.DateTimeFormat(locale, { ...day, hour: "2-digit", minute: "2-digit" }).format(time);
}

function rowOf(id) {
  let row = rows.get(id);
  if (row) return row;
  row = {
    li: element("li"), who: element("span", "out-of-sight"), bubble: element("div", "bubble"), text: element("span"),
    files: element("span"), below: element("div", "below"), time: element("time"), state: element("span", "state"),
    edit: element("button", "link", words.edit), remove: element("button", "link", words.remove),
  };
  row.edit.type = row.remove.type = "button";
  row.li.dataset.id = id;
  row.bubble.append(row.text, row.files);
  row.below.append(row.edit, row.remove, row.time, row.state);
  row.li.append(row.who, row.bubble, row.below);
  row.edit.addEventListener("click", () => beginEdit(id));
  row.remove.addEventListener("click", () => remove(id, row.remove));
  rows.set(id, row);
  return row;
}

function drawEntry(entry) {
  const row = rowOf(entry.id);
  const isMine = entry.sender === "customer";
  const isThere = isMine && entry.state === "sent" && !entry.is_deleted;
  row.li.className = [
    entry.sender, entry.state, entry.is_deleted ? "deleted" : "", entry.is_acknowledgement ? "notice" : "",
  ].filter(Boolean).join(" ");
  write(row.who, `${isMine ? words.you : entry.is_acknowledgement ? words.automatic : words.us}: `);
  write(row.text, entry.is_deleted ? words.deleted : entry.text);
  const files = (entry.attachments ?? []).map((file) => file.name);
  if (row.files.dataset.names !== JSON.stringify(files)) {
    row.files.dataset.names = JSON.stringify(files);
    row.files.replaceChildren(...files.map((name) => element("span", "file", name)));
  }
  row.time.dateTime = entry.at;
  write(row.time, clock(entry.at));
  const isGone = entry.is_deleted && entry.state === "sent";
  write(row.state, [
    entry.is_edited && !entry.is_deleted ? words.edited : "", isGone ? "" : words[entry.state] ?? "", entry.notDone ? words.notDone : "",
  ].filter(Boolean).join(" · "));
  row.state.classList.toggle("waiting", entry.state === "waiting");
  row.edit.hidden = !isThere;
  row.remove.hidden = !isThere && entry.state !== "refused";
  if (row.remove.dataset.asked !== "yes") write(row.remove, entry.state === "refused" ? words.discard : words.remove);
  return row.li;
}

function draw() {
  const log = byId("log");
  const scroll = byId("scroll");
  const isAtEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  const entries = shown();
  entries.forEach((entry, place) => {
    const li = drawEntry(entry);
    // Only what is out of place is moved: a moved element loses its focus, and is read out again.
    if (log.children[place] !== li) log.insertBefore(li, log.children[place] ?? null);
  });
  while (log.children.length > entries.length) {
    rows.delete(log.lastElementChild.dataset.id);
    log.lastElementChild.remove();
  }
  if (isAtEnd) scroll.scrollTop = scroll.scrollHeight;

  const status = byId("status");
  status.className = `status ${state.connection}`;
  write(status, words[state.connection]);
  const banner = byId("banner");
  banner.hidden = state.connection !== "lost" && !state.needsLogin;
  write(banner, state.needsLogin ? words.login : words.lostBanner);
  byId("editing").hidden = state.editing === null;
  byId("send").disabled = byId("text").value.trim() === "";
}

function grow() {
  const text = byId("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

// --- writing ------------------------------------------------------------------------------------------------------

function enqueue(change) {
  state.unsent.push({ type: "message", message_id: crypto.randomUUID?.() ?? randomId(), sent_at: new Date().toISOString(), ...change });
  keepUnsent();
  draw();
  pump();
}

function randomId() { // randomUUID needs https
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function submit(event) {
  event?.preventDefault();
  const field = byId("text");
  const text = field.value.trim();
  if (!text) return;
  const edits = state.editing;
  state.editing = null;
  field.value = "";
  grow();
  enqueue(edits ? { text, edits } : { text });
  byId("scroll").scrollTop = byId("scroll").scrollHeight;
  field.focus();
}

function beginEdit(id) {
  const field = byId("text");
  state.editing = id;
  field.value = state.entries.find((entry) => entry.id === id)?.text ?? "";
  grow();
  draw();
  field.focus();
}

function cancelEdit() {
  if (state.editing === null) return;
  state.editing = null;
  byId("text").value = "";
  grow();
  draw();
  byId("text").focus();
}

function remove(id, button) {
  if (state.refused.delete(id)) {
    draw();
    byId("text").focus();
  } else if (button.dataset.asked === "yes") {
    delete button.dataset.asked;
    if (state.editing === id) cancelEdit();
    enqueue({ deletes: id });
    byId("text").focus();
  } else {
    button.dataset.asked = "yes";
    write(button, words.sure);
    setTimeout(() => {
      delete button.dataset.asked;
      draw();
    }, CONFIRM_MS);
  }
}

// --- sending ------------------------------------------------------------------------------------------------------

// One after the other, so that they arrive in the order they were written.
function pump() {
  clearTimeout(pausing);
  const waitMs = pausedUntil - Date.now();
  if (waitMs > 0) {
    pausing = setTimeout(pump, waitMs + 10);
    return draw();
  }
  if (state.connection !== "live" || inFlight || state.unsent.length === 0) return draw();
  const frame = (inFlight = state.unsent[0]);
  const line = socket;
  line.send(JSON.stringify(frame));
  clearTimeout(accepting);
  accepting = setTimeout(() => {
    if (inFlight === frame && socket === line) line.close(PAGE_ENDED); // no answer: connect anew, send again
  }, ACCEPT_MS);
  draw();
}

function settle(messageId) {
  const frame = state.unsent.find((item) => item.message_id === messageId);
  if (inFlight?.message_id === messageId) inFlight = null;
  state.unsent = state.unsent.filter((item) => item.message_id !== messageId);
  keepUnsent();
  return frame;
}

function accepted(messageId) {
  const frame = settle(messageId);
  if (!frame) return;
  const changed = state.entries.find((entry) => entry.id === (frame.edits ?? frame.deletes));
  if (changed && frame.deletes) Object.assign(changed, { is_deleted: true, text: "", attachments: [] });
  else if (changed) Object.assign(changed, { is_edited: true, text: frame.text });
  else if (!frame.edits && !frame.deletes && !state.entries.some((entry) => entry.id === messageId)) {
    state.entries.push({ id: messageId, sender: "customer", text: frame.text, at: frame.sent_at, attachments: [] });
  }
}

function failed(said) {
  if (said.status === 429 || said.status >= 500) {
    inFlight = null;
    pausedUntil = Date.now() + 1_000 * (said.retry_after ?? 2);
    return;
  }
  const frame = settle(said.message_id ?? inFlight?.message_id);
  if (frame) state.refused.set(frame.message_id, frame);
}

// --- the connection -----------------------------------------------------------------------------------------------

async function tokenOf() {
  if (token) return token;
  token = framed === "token" ? await parentsToken() : await visitorsToken();
  return token;
}

function parentsToken() {
  return new Promise((resolve, reject) => {
    const hear = (event) => {
      if (event.source !== window.parent || event.data?.switchyard !== "token") return;
      window.removeEventListener("message", hear);
      if (event.data.token) resolve(event.data.token);
      else reject(new NeedsLogin());
    };
    window.addEventListener("message", hear);
    setTimeout(() => {
      window.removeEventListener("message", hear);
      reject(new Error("the page gave no token"));
    }, TOKEN_MS);
    tellParent({ switchyard: "token" });
  });
}

async function visitorsToken() {
  const kept = stored("localStorage", VISITOR_KEY);
  if (kept && Date.parse(kept.expires_at) > Date.now()) return kept.token;
  const answer = await fetch(`visitors?lang=${language}`, { method: "POST" });
  if (answer.status === 404) throw new NeedsLogin();
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const visitor = await answer.json();
  store("localStorage", VISITOR_KEY, visitor);
  return visitor.token;
}

async function loadHistory() {
  const before = new Set(state.entries.map((entry) => entry.id));
  const wasEmpty = before.size === 0;
  const answer = await fetch("history", { headers: { Authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const { items } = await answer.json();
  const told = new Set(items.map((item) => item.id));
  // What was pushed meanwhile may be newer than the answer.
  state.entries = [...items, ...state.entries.filter((entry) => !before.has(entry.id) && !told.has(entry.id))];
  // Accepted, but the answer got lost.
  for (const item of items) if (state.unsent.some((frame) => frame.message_id === item.id)) settle(item.id);
  if (!wasEmpty) count(items.filter((item) => item.sender === "brand" && !before.has(item.id)).length);
}

// One connection, from its beginning to its end.
async function converse(onLive) {
  const hello = await tokenOf();
  const address = new URL("socket", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const line = new WebSocket(address);
  let silence;
  let pinging;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => line.close(PAGE_ENDED), SILENCE_MS);
  };
  try {
    await new Promise((resolve) => {
      line.onclose = (event) => {
        if (event.code === WRONG_TOKEN) {
          token = null;
          store("localStorage", VISITOR_KEY, null);
        }
        resolve();
      };
      line.onopen = () => {
        heard();
        line.send(JSON.stringify({ type: "hello", token: hello }));
        pinging = setInterval(() => line.send(JSON.stringify({ type: "ping" })), PING_MS);
      };
      line.onmessage = (event) => {
        heard();
        void hear(line, JSON.parse(event.data), onLive);
      };
    });
  } finally {
    clearTimeout(silence);
    clearInterval(pinging);
    line.onmessage = null;
    line.close();
  }
}

async function hear(line, said, onLive) {
  if (said.type === "welcome") {
    becomes(said.customer_id);
    socket = line;
    const log = byId("log");
    log.setAttribute("aria-busy", "true"); // what was said before is not read out
    try {
      await loadHistory(); // replies are pushed from now on, so nothing falls between the two
    } catch {
      line.close(PAGE_ENDED);
      return;
    }
    state.connection = "live";
    state.needsLogin = false;
    onLive();
    draw();
    log.removeAttribute("aria-busy");
  } else if (said.type === "accepted") accepted(said.message_id);
  else if (said.type === "error") failed(said);
  else if (said.type === "reply") {
    if (!state.entries.some((entry) => entry.id === said.id)) {
      state.entries.push({ ...said, sender: "brand", attachments: [] });
      count(1);
    }
  } else if (said.type === "refresh") await loadHistory().catch(() => line.close(PAGE_ENDED));
  pump();
}

async function stayConnected() {
  await keptByParent;
  state.unsent.unshift(...(stored("sessionStorage", UNSENT_KEY)?.[""] ?? [])); // from before it was known who writes
  let delay = RETRY_FIRST_MS;
  for (;;) {
    try {
      await converse(() => { delay = RETRY_FIRST_MS; });
    } catch (error) {
      state.needsLogin = error instanceof NeedsLogin;
    }
    socket = null;
    inFlight = null;
    state.connection = "lost";
    draw();
    await new Promise((resume) => {
      const timer = setTimeout(resume, delay * (0.5 + Math.random() / 2));
      window.addEventListener("online", () => { clearTimeout(timer); resume(); }, { once: true });
    });
    delay = Math.min(RETRY_MOST_MS, delay * 2);
  }
}

// --- the page around ----------------------------------------------------------------------------------------------

// To whoever embeds us, which our Content-Security-Policy decides; nothing of it is secret.
function tellParent(message) {
  if (framed) window.parent.postMessage(message, "*");
}

function count(replies) {
  state.unread = state.isOpen ? 0 : state.unread + replies;
  tellParent({ switchyard: "unread", count: state.unread });
}

let hasKept;
const keptByParent = new Promise((resolve) => {
  hasKept = resolve;
  if (framed) setTimeout(resolve, KEPT_MS);
  else resolve();
});

window.addEventListener("message", (event) => {
  if (event.source !== window.parent || event.data?.switchyard !== "shown") return;
  for (const [key, value] of Object.entries(event.data.kept ?? {})) memory.set(key, value);
  hasKept();
  state.isOpen = event.data.isOpen === true;
  if (state.isOpen) {
    count(0);
    byId("text").focus();
  }
});

document.documentElement.lang = language;
for (const target of document.querySelectorAll("[data-text]")) target.textContent = words[target.dataset.text];
const title = document.documentElement.dataset[language === "zh" ? "titleZh" : "titleEn"] || words.title;
document.title = title;
write(byId("title"), title);
byId("scroll").setAttribute("aria-label", words.messages);
byId("text").placeholder = words.write;
byId("send").setAttribute("aria-label", words.send);
byId("close").setAttribute("aria-label", words.close);
byId("close").hidden = framed === null;
byId("close").addEventListener("click", () => tellParent({ switchyard: "close" }));
byId("composer").addEventListener("submit", submit);
byId("cancel-edit").addEventListener("click", cancelEdit);
byId("text").addEventListener("input", () => { grow(); draw(); });
byId("text").addEventListener("keydown", (event) => {
  // An input method uses Enter to choose a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  else if (event.key === "Escape") {
    if (state.editing) cancelEdit();
    else tellParent({ switchyard: "close" });
  }
});

draw();
tellParent({ switchyard: "ready" });
void stayConnected();
