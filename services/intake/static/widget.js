// Puts a chat into a page: <script src="https://<intake>/v1/channels/app_chat/<brand>/widget.js" async></script>
//
// A site whose customers have logged in says before it how to get their session token:
//   window.switchyardChat = { token: () => fetch("/chat-token").then((answer) => answer.text()), lang: "zh" };
(() => {
  "use strict";
  const script = document.currentScript;
  if (!script || window.switchyardChat?.open) return; // there is one already
  const settings = window.switchyardChat ?? {};
  const base = new URL(".", script.src);
  const language = settings.lang ?? (document.documentElement.lang || navigator.language);
  const zh = language.toLowerCase().startsWith("zh");
  const RETRY_MS = 5_000;
  const words = zh
    ? { open: "打开在线客服", close: "关闭在线客服", frame: "在线客服", unread: "条新消息" }
    : { open: "Open chat", close: "Close chat", frame: "Chat with customer service", unread: "new" };

  // A shadow root and a sheet made by script: the page's own rules do not reach in, its style policy is not touched.
  const host = document.createElement("div");
  host.id = "switchyard-chat";
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    :host { all: initial; }
    button {
      position: fixed; right: 20px; bottom: 20px; z-index: 2147483646; width: 60px; height: 60px; padding: 0; border: 0;
      border-radius: 50%; color: #fff; background: #1f4fd8; box-shadow: 0 6px 24px rgb(15 25 45 / 30%); cursor: pointer;
    }
    button:hover { background: #173fae; }
    button:focus-visible { outline: 3px solid #fff; box-shadow: 0 0 0 6px #1f4fd8; }
    svg { width: 28px; height: 28px; fill: none; stroke: currentcolor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
    .unread {
      position: absolute; top: -4px; right: -4px; min-width: 22px; height: 22px; padding: 0 6px; box-sizing: border-box;
      border-radius: 11px; font: 600 13px/22px system-ui, sans-serif; color: #fff; background: #c62f36;
    }
    .unread:empty { display: none; }
    iframe {
      position: fixed; right: 20px; bottom: 92px; z-index: 2147483647; width: 380px; height: min(620px, calc(100vh - 112px));
      border: 0; border-radius: 16px; background: #f4f6fa; box-shadow: 0 12px 48px rgb(15 25 45 / 30%);
    }
    [hidden] { display: none; }
    @media (max-width: 480px) {
      iframe { inset: 0; width: 100%; height: 100%; border-radius: 0; }
      .opened button { display: none; }
    }
  `);
  root.adoptedStyleSheets = [sheet];

  const box = document.createElement("div");
  const button = document.createElement("button");
  button.type = "button";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M21 12a8 8 0 0 1-8 8H4l2-3.2A8 8 0 1 1 21 12zM9 12h.01M13 12h.01M17 12h.01");
  svg.append(path);
  const unread = document.createElement("span");
  unread.className = "unread";
  button.append(svg, unread);
  box.append(button);
  root.append(box);

  let frame = null; // made when it is first opened: a page that nobody chats on costs one button
  let isOpen = false;
  let isReady = false;

  // A frame that could not be loaded shows nothing that would try again by itself.
  function load() {
    frame.src = address();
    setTimeout(() => isReady || load(), RETRY_MS);
  }

  function address() {
    const page = new URL("widget", base);
    page.search = new URLSearchParams({ lang: language, framed: settings.token ? "token" : "yes" }).toString();
    return page.href;
  }

  function draw(count = 0) {
    if (frame) frame.hidden = !isOpen;
    box.className = isOpen ? "opened" : "";
    unread.textContent = isOpen || !count ? "" : count > 99 ? "99+" : String(count);
    button.setAttribute("aria-expanded", String(isOpen));
    button.setAttribute("aria-label", (isOpen ? words.close : words.open) + (unread.textContent ? ` (${count} ${words.unread})` : ""));
  }

  function toggle(open) {
    if (open && !frame) {
      frame = document.createElement("iframe");
      frame.title = words.frame;
      load();
      box.prepend(frame);
    }
    isOpen = open;
    draw();
    tell({ switchyard: "shown", isOpen });
    if (isOpen) frame.focus();
    else button.focus();
  }

  // Where the browser lets a frame of another site keep nothing, its page does: what is not sent yet, a visitor's token.
  const brand = base.pathname.split("/").at(-2);
  const AREAS = { [`switchyard.unsent.${brand}`]: "sessionStorage", [`switchyard.visitor.${brand}`]: "localStorage" };

  function kept() {
    const found = {};
    for (const [key, area] of Object.entries(AREAS)) {
      try {
        found[key] = JSON.parse(window[area].getItem(key));
      } catch {
        // Then it is kept nowhere, and lives as long as the page.
      }
    }
    return found;
  }

  function keep({ key, value }) {
    try {
      const area = window[AREAS[key]];
      if (value === null) area.removeItem(key);
      else area.setItem(key, JSON.stringify(value));
    } catch {
      // as above
    }
  }

  function tell(message) {
    frame?.contentWindow?.postMessage(message, base.origin);
  }

  window.addEventListener("message", async (event) => {
    if (!frame || event.source !== frame.contentWindow || event.origin !== base.origin) return;
    const said = event.data?.switchyard;
    if (said === "close") toggle(false);
    else if (said === "unread") draw(Number(event.data.count) || 0);
    else if (said === "ready") {
      isReady = true;
      tell({ switchyard: "shown", isOpen, kept: kept() });
    } else if (said === "keep") keep(event.data);
    else if (said === "token") {
      let token = null;
      try {
        token = await settings.token();
      } catch {
        // The frame asks again, with back-off.
      }
      tell({ switchyard: "token", token: typeof token === "string" ? token : null });
    }
  });
  button.addEventListener("click", () => toggle(!isOpen));

  window.switchyardChat = { ...settings, open: () => toggle(true), close: () => toggle(false) };
  draw();
  const show = () => document.body.append(host);
  if (document.body) show();
  else document.addEventListener("DOMContentLoaded", show);
})();
