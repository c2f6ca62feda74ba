// The queues live. Everything that comes from the server is written with textContent; nothing is ever parsed as HTML.

const TOKEN_KEY = "switchyard.token"; // of this tab only: sessionStorage ends with it
const LANGUAGE_KEY = "switchyard.language";
const SILENCE_MS = 25_000; // the server says something every 10 s
const RETRY_FIRST_MS = 1_000;
const RETRY_MOST_MS = 10_000;
const SOON_SECONDS = 300;
const PRIORITIES = ["P1", "P2", "P3", "P4"];

const WORDS = {
  en: {
    title: "Queues live", signInTitle: "Sign in", signInHint: "Enter the token that your team lead gave you.",
    token: "Token", signIn: "Sign in", signOut: "Sign out", language: "中文",
    wrongToken: "This token is not known here. Check it, or ask your team lead.",
    cannotReach: "The desk cannot be reached. Check the connection and try again.",
    tooFast: "Too many requests with this token. Try again in a moment.",
    loading: "Loading the queues …", noQueues: "Your token has no queues. Ask your team lead.",
    calm: "Nobody is waiting. All queues are empty.",
    queue: "Queue", waiting: "Waiting", byPriority: "Waiting by priority", oldest: "Oldest", nextDue: "Next due",
    breached: "Breached", claimed: "Claimed", onCustomer: "On customer",
    live: "live", connecting: "connecting", lost: "connection lost", peak: "peak",
    peakTitle: (brand, channel, staff) =>
      `${brand}${channel ? ` (${channel})` : ""}: more arrivals than expected${staff === null ? "" : `; staff needed: ${staff}`}`,
    lostSince: (time, ago) => `Connection lost at ${time}, ${ago} ago. The figures are from then; trying again …`,
    days: "d",
  },
  zh: {
    title: "队列实况", signInTitle: "登录", signInHint: "请输入组长发给你的令牌。",
    token: "令牌", signIn: "登录", signOut: "退出", language: "English",
    wrongToken: "令牌无效，请核对或联系组长。",
    cannotReach: "无法连接到工作台，请检查网络后重试。",
    tooFast: "此令牌请求过于频繁，请稍后再试。",
    loading: "正在载入队列……", noQueues: "你的令牌没有可查看的队列，请联系组长。",
    calm: "没有人在等待，所有队列都已清空。",
    queue: "队列", waiting: "等待", byPriority: "按优先级", oldest: "最久等待", nextDue: "下一到期",
    breached: "已超时", claimed: "处理中", onCustomer: "等客户",
    live: "实时", connecting: "连接中", lost: "连接中断", peak: "高峰",
    peakTitle: (brand, channel, staff) =>
      `${brand}${channel ? `（${channel}）` : ""}：来量超过预期${staff === null ? "" : `，需要人手：${staff}`}`,
    lostSince: (time, ago) => `连接于 ${time} 中断，已 ${ago}。以下为当时的数据，正在重试……`,
    days: "天",
  },
};

const byId = (id) => document.getElementById(id);
const state = {
  language: localStorage.getItem(LANGUAGE_KEY) ?? (navigator.language.startsWith("zh") ? "zh" : "en"),
  token: sessionStorage.getItem(TOKEN_KEY),
  queues: null, // the latest figures
  connection: "connecting", // or "live", "lost"
  lostAt: null, // ms since the epoch
  skewMs: 0, // the server's clock minus ours
  ending: null, // AbortController of the running connection
};
const rows = new Map(); // queue code -> its cells

const words = () => WORDS[state.language] ?? WORDS.en;
const serverNow = () => Date.now() + state.skewMs;

class WrongToken extends Error {}
class TooFast extends Error {}

// --- drawing ----------------------------------------------------------------------------------------------------

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function write(target, text) {
  if (target.textContent === text) return false;
  target.textContent = text;
  return true;
}

function writeCount(target, number) {
  const known = target.dataset.known === "yes";
  target.classList.toggle("zero", number === 0);
  if (write(target, String(number)) && known) {
    target.classList.remove("changed");
    void target.offsetWidth; // so that the animation starts again
    target.classList.add("changed");
  }
  target.dataset.known = "yes";
}

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (number) => String(number).padStart(2, "0");
  const days = Math.floor(whole / 86_400);
  const hours = Math.floor((whole % 86_400) / 3_600);
  const clock = `${pad(Math.floor((whole % 3_600) / 60))}:${pad(whole % 60)}`;
  if (days) return `${days} ${words().days} ${pad(hours)}:${clock}`;
  return hours ? `${hours}:${clock}` : clock;
}

function drawDue(target, dueAt) {
  const seconds = dueAt === null ? null : (Date.parse(dueAt) - serverNow()) / 1_000;
  target.classList.toggle("zero", seconds === null);
  target.classList.toggle("bad", seconds !== null && seconds < 0);
  target.classList.toggle("soon", seconds !== null && seconds >= 0 && seconds < SOON_SECONDS);
  if (seconds === null) write(target, "–");
  else write(target, seconds < 0 ? `−${duration(-seconds)}` : duration(Math.ceil(seconds)));
}

function drawAge(target, since) {
  target.classList.toggle("zero", since === null);
  write(target, since === null ? "–" : duration((serverNow() - Date.parse(since)) / 1_000));
}

function rowOf(queue) {
  let row = rows.get(queue);
  if (row) return row;
  row = { tr: element("tr"), chips: {} };
  row.tr.dataset.queue = queue;
  const head = element("th");
  head.scope = "row";
  row.name = element("span", "name");
  row.otherName = element("span", "other-name");
  row.peak = element("span", "peak");
  head.append(row.name, row.peak, row.otherName);
  row.tr.append(head);
  for (const [field, label, className] of [
    ["waiting", "waiting", "number waiting"], ["priorities", "byPriority", "priorities"],
    ["oldest", "oldest", "number"], ["due", "nextDue", "number due"], ["breached", "breached", "number breached"],
    ["claimed", "claimed", "number claimed"], ["onCustomer", "onCustomer", "number"],
  ]) {
    const cell = element("td", className);
    cell.dataset.word = label;
    row[field] = element("span");
    cell.append(row[field]);
    row.tr.append(cell);
  }
  row.priorities.className = "chips";
  for (const priority of PRIORITIES) {
    const chip = element("span", `chip ${priority.toLowerCase()}`);
    const count = element("b");
    chip.append(element("span", "", `${priority} `), count);
    row.priorities.append(chip);
    row.chips[priority] = { chip, count };
  }
  rows.set(queue, row);
  return row;
}

function drawQueue(item) {
  const row = rowOf(item.queue);
  const zh = state.language === "zh";
  write(row.name, zh ? item.name_zh : item.name_en);
  write(row.otherName, zh ? item.name_en : item.name_zh);
  row.peak.hidden = item.peaks.length === 0;
  write(row.peak, words().peak);
  row.peak.title = item.peaks
    .map((peak) => words().peakTitle(peak.brand, peak.channel, peak.staff_needed))
    .join("\n"); // no sum: a peak of one channel is part of that of all channels
  writeCount(row.waiting, item.waiting);
  for (const priority of PRIORITIES) {
    const { chip, count } = row.chips[priority];
    writeCount(count, item.by_priority[priority]);
    chip.classList.toggle("zero", item.by_priority[priority] === 0);
  }
  drawAge(row.oldest, item.oldest_enqueued_at);
  drawDue(row.due, item.next_due_at);
  writeCount(row.breached, item.breached);
  row.breached.classList.toggle("bad", item.breached > 0);
  row.tr.classList.toggle("broken", item.breached > 0);
  writeCount(row.claimed, item.claimed);
  writeCount(row.onCustomer, item.waiting_on_customer);
  for (const cell of row.tr.querySelectorAll("td")) cell.dataset.label = words()[cell.dataset.word];
  return row.tr;
}

function drawQueues() {
  const queues = state.queues ?? [];
  const body = byId("rows");
  const wanted = queues.map(drawQueue);
  if (wanted.length !== body.children.length || wanted.some((tr, place) => body.children[place] !== tr)) {
    body.replaceChildren(...wanted);
  }
  const sum = (field) => queues.reduce((total, item) => total + item[field], 0);
  writeCount(byId("total-waiting"), sum("waiting"));
  writeCount(byId("total-claimed"), sum("claimed"));
  writeCount(byId("total-breached"), sum("breached"));
  byId("total-breached").classList.toggle("bad", sum("breached") > 0);
  byId("calm").hidden = sum("waiting") > 0;
  drawTimes();
}

function drawTimes() {
  const queues = state.queues ?? [];
  for (const item of queues) {
    drawAge(rowOf(item.queue).oldest, item.oldest_enqueued_at);
    drawDue(rowOf(item.queue).due, item.next_due_at);
  }
  const due = queues.map((item) => item.next_due_at).filter(Boolean).sort((a, b) => Date.parse(a) - Date.parse(b));
  drawDue(byId("total-due"), due[0] ?? null);
  drawConnection();
}

function drawConnection() {
  const status = byId("status");
  status.hidden = !state.token;
  status.classList.toggle("lost", state.connection === "lost");
  status.classList.toggle("trying", state.connection === "connecting");
  write(status, words()[state.connection]);
  const lost = state.connection === "lost" && state.token !== null;
  byId("banner").hidden = !lost;
  byId("live").classList.toggle("stale", lost);
  if (lost) {
    const time = new Date(state.lostAt).toLocaleTimeString(state.language === "zh" ? "zh-CN" : "en-GB");
    write(byId("banner"), words().lostSince(time, duration((Date.now() - state.lostAt) / 1_000)));
  }
}

function draw() {
  document.documentElement.lang = state.language === "zh" ? "zh-CN" : "en";
  document.title = `${words().title} · Switchyard`;
  for (const target of document.querySelectorAll("[data-text]")) write(target, words()[target.dataset.text]);
  write(byId("language"), words().language);
  byId("sign-in").hidden = state.token !== null;
  byId("sign-out").hidden = state.token === null;
  byId("loading").hidden = state.token === null || state.queues !== null;
  byId("none").hidden = state.token === null || state.queues === null || state.queues.length > 0;
  byId("live").hidden = state.token === null || !state.queues?.length;
  drawQueues();
}

// --- the connection -----------------------------------------------------------------------------------------------

async function ask(path, signal) {
  if (/[^\x21-\x7e]/.test(state.token)) throw new WrongToken(); // no header can carry it
  const response = await fetch(path, { headers: { Authorization: `Bearer ${state.token}` }, cache: "no-store", signal });
  if (response.status === 401 || response.status === 403) throw new WrongToken();
  if (response.status === 429) throw new TooFast();
  if (!response.ok) throw new Error(`status ${response.status}`);
  const date = Date.parse(response.headers.get("Date") ?? "");
  // The header has whole seconds: a smaller difference is not one.
  if (!Number.isNaN(date)) state.skewMs = Math.abs(date - Date.now()) > 2_000 ? date - Date.now() : 0;
  return response;
}

// EventSource cannot send the Authorization header, so the stream is read by hand.
async function follow(signal, onSign) {
  const response = await ask("v1/queues/stream", signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onSign();
    unread += value;
    const events = unread.split("\n\n");
    unread = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (!data) continue;
      state.queues = JSON.parse(data.slice("data: ".length)).queues;
      state.connection = "live";
      state.lostAt = null;
      draw();
    }
  }
}

async function stayConnected() {
  const token = state.token;
  let delay = RETRY_FIRST_MS;
  while (state.token === token && token !== null) {
    const ending = new AbortController();
    state.ending = ending;
    let silence;
    const onSign = () => {
      delay = RETRY_FIRST_MS;
      clearTimeout(silence);
      silence = setTimeout(() => ending.abort(), SILENCE_MS);
    };
    try {
      silence = setTimeout(() => ending.abort(), SILENCE_MS);
      await follow(ending.signal, onSign);
    } catch (error) {
      if (error instanceof WrongToken) {
        if (state.token === token) signOut("wrongToken");
        return;
      }
    } finally {
      clearTimeout(silence);
      ending.abort(); // whatever ended it, let go of the socket
    }
    if (state.token !== token) return;
    state.connection = "lost";
    state.lostAt ??= Date.now();
    draw();
    await new Promise((resume) => setTimeout(resume, delay * (0.5 + Math.random() / 2)));
    delay = Math.min(RETRY_MOST_MS, delay * 2);
  }
}

async function showWho() {
  try {
    const me = await (await ask("v1/me")).json();
    write(byId("who"), me.name);
  } catch {
    write(byId("who"), ""); // the connection says what is wrong
  }
}

// --- signing in and out -------------------------------------------------------------------------------------------

async function signIn(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  const previous = state.token;
  state.token = byId("token").value.trim();
  button.disabled = true;
  try {
    await ask("v1/me");
  } catch (error) {
    state.token = previous;
    const reason = error instanceof WrongToken ? "wrongToken" : error instanceof TooFast ? "tooFast" : "cannotReach";
    write(byId("sign-in-error"), words()[reason]);
    byId("token").select();
    return;
  } finally {
    button.disabled = false;
  }
  sessionStorage.setItem(TOKEN_KEY, state.token);
  byId("token").value = "";
  write(byId("sign-in-error"), "");
  start();
}

function signOut(reason = null) {
  state.token = null;
  state.queues = null;
  state.lostAt = null;
  state.connection = "connecting";
  sessionStorage.removeItem(TOKEN_KEY);
  state.ending?.abort();
  write(byId("who"), "");
  write(byId("sign-in-error"), reason ? words()[reason] : "");
  rows.clear();
  draw();
  byId("token").focus();
}

function start() {
  draw();
  void stayConnected();
  void showWho();
}

byId("sign-in").addEventListener("submit", signIn);
byId("sign-out").addEventListener("click", () => signOut());
byId("language").addEventListener("click", () => {
  state.language = state.language === "zh" ? "en" : "zh";
  localStorage.setItem(LANGUAGE_KEY, state.language);
  draw();
});
setInterval(drawTimes, 250);

if (state.token) start();
else draw();
