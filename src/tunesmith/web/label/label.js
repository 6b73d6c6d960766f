// The labelling page's keys. A judgment is shown as saved only when the server has it on disk; until then it
// waits in localStorage, also over a reload, and is sent again under the same id, which counts once.
"use strict";
const $ = id => document.getElementById(id);
const room = $("room").dataset, disputes = Boolean(room.disputes);
const isPair = $("room").classList.contains("pair");
const prefix = `tunesmith/${room.room}/${room.person}/`;
const path = `/api/q/${encodeURIComponent(room.queue)}${disputes ? "/disputes" : ""}`;
let items = room.first ? [{ id: room.first, html: $("item").innerHTML }] : [];  // [0] is on the screen
let past = [];  // what was judged here, to go back to at once: {id, item}
let undo = JSON.parse(room.undo);  // the newest judgment that the server would undo
let isCurrent = true;  // nothing was said since the server's last list: an empty one means the end
let jump = null;  // the item that an undo brings back, once the server has sent it
let shownAt = performance.now(), sending = null, again = false, delay = 500, timer = 0, count = 0;

// --- what waits to be sent

function waiting() {
  return Object.keys(localStorage).filter(k => k.startsWith(prefix)).sort().map(k => [k, JSON.parse(localStorage[k])]);
}

function newId() {  // not randomUUID, which plain http on a phone lacks
  return [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, "0")).join("");
}

function keep(said) {
  const order = `${String(Date.now()).padStart(15, "0")}-${String(count++).padStart(6, "0")}-${said.id}`;
  localStorage.setItem(prefix + order, JSON.stringify(said));
}

async function ask(url, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(url, { ...options, cache: "no-store", signal: AbortSignal.timeout(20000) });
  const text = await answer.json();
  if (answer.ok) return text;
  const error = new Error(text.error ? text.error.message : "refused");
  error.status = answer.status;
  throw error;
}

function flush() {  // one after the other: an undo must not overtake what it undoes
  clearTimeout(timer);
  if (sending) again = true;  // it may be past its last look at what waits
  else sending = send().finally(() => { sending = null; if (again) { again = false; flush(); } });
  return sending;
}

async function send() {
  let last = null;
  for (let queue; (queue = waiting()).length;) {
    const [key, said] = queue[0];
    state(`${queue.length} to save…`);
    try {
      const answer = await ask("/api/judge", said);
      if (said.queue === room.queue && (said.verb === "adjudicate") === disputes) last = answer;
      localStorage.removeItem(key);
      delay = 500;
    } catch (error) {
      if ([400, 409, 413].includes(error.status)) {  // it will never be kept: say so, and show how things are
        localStorage.removeItem(key);
        past = past.filter(p => p.id !== said.id);
        problem(`Not kept: ${error.message}`);
        last = null;
        continue;
      }
      if ([401, 403].includes(error.status)) return state("your link no longer works; ask for a new one", true);
      state(`${queue.length} waiting in this browser; ${error.status ? error.message : "the server can't be reached"}`, true);
      timer = setTimeout(flush, delay = Math.min(delay * 2, 15000));
      return;
    }
  }
  try {
    take(last || await ask(path));
    state("saved");
  } catch {
    state("the server can't be reached", true);
    timer = setTimeout(flush, delay = Math.min(delay * 2, 15000));
  }
}

// --- what is on the screen

function state(text, bad) {
  $("saved").textContent = text;
  $("saved").classList.toggle("bad", Boolean(bad));
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function take(answer) {  // the server's list is right, but for what has been said since
  const said = waiting().map(([, s]) => s);
  const fresh = answer.items.filter(i => !said.some(s => s.item === i.id && s.verb !== "undo"));
  const current = items[0];
  if (said.length) {
    items.push(...fresh.filter(f => !items.some(i => i.id === f.id)));
  } else {
    const isEdited = current && $("item").querySelector("details[open]");
    const back = fresh.find(f => f.id === jump);
    jump = null;
    if (back) items = [back, ...fresh.filter(f => f !== back)];
    else if (isEdited || fresh.some(f => f.id === current?.id)) items = [current, ...fresh.filter(f => f.id !== current.id)];
    else items = fresh;
  }
  isCurrent = !said.length;
  progress(answer.progress, said.length);
  if (items[0]?.id !== current?.id || !current) show();
}

function progress(p, ahead) {
  const n = value => value.toLocaleString("en");
  $("given").textContent = n(p.given);
  $("wanted").textContent = n(p.wanted);
  $("mine").textContent = n(p.mine);
  $("bar").max = p.wanted || 1;
  $("bar").value = p.given;
  if ($("disputes")) $("disputes").textContent = p.disputes;
  $("agree").hidden = p.agreement.items < 10;
  $("agree").querySelector("b").textContent = p.agreement.alpha === null ? "–" : p.agreement.alpha.toFixed(2);
  $("agree").querySelector("span").textContent = n(p.agreement.items);
  $("left").hidden = p.left_s === null;
  if (p.left_s !== null) $("left").querySelector("b").textContent = duration(p.left_s);
  if ($("elsewhere")) { $("elsewhere").hidden = !p.elsewhere; $("nothing").hidden = Boolean(p.elsewhere); }
  if (!ahead) undo = p.undo;
  document.title = `${disputes ? p.disputes : p.wanted - p.given} left · ${document.title.split(" · ").slice(1).join(" · ")}`;
  showUndo();
}

function duration(s) {
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${String(Math.round(s % 3600 / 60)).padStart(2, "0")} min`;
}

function showUndo() { $("undo-form").hidden = !(past.length || undo); }

function show() {
  const item = items[0];
  $("item").innerHTML = item ? item.html : "";  // escaped by the server, which also wrote the page
  $("done").hidden = Boolean(item) || !isCurrent;
  $("moment").hidden = Boolean(item) || isCurrent;
  enhance();
  window.scrollTo(0, 0);
  shownAt = performance.now();
}

function enhance() {
  const search = $("item").querySelector(".search");
  if (!search) return;
  search.hidden = false;
  const buttons = [...$("item").querySelectorAll(".labels button")];
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const b of buttons) b.hidden = !words.every(w => b.value.toLowerCase().includes(w));
  });
  search.addEventListener("keydown", e => {
    if (e.key === "Enter") { e.preventDefault(); buttons.find(b => !b.hidden)?.click(); }
    if (e.key === "Escape") { search.value = ""; search.dispatchEvent(new Event("input")); search.blur(); }
  });
}

// --- what is said

function say(verb, value, reason, words) {
  const item = items.shift();
  if (!item) return;
  const said = {
    id: newId(), queue: room.queue, item: item.id, verb, value, reason: reason || "",
    seconds: Math.min(86400, Math.round(performance.now() - shownAt) / 1000),
  };
  keep(said);
  isCurrent = false;
  past.push({ id: said.id, item });
  problem("");
  $("said").textContent = words;
  show();
  showUndo();
  flush();
}

function takeBack() {
  const last = past.pop() || (undo && { id: undo.id, item: { id: undo.item } });
  if (!last) return;
  undo = null;
  keep({ id: newId(), queue: room.queue, item: last.item.id, verb: "undo", value: last.id, reason: "", seconds: 0 });
  if (last.item.html) { items.unshift(last.item); show(); }
  else jump = last.item.id;
  $("said").textContent = "undone";
  showUndo();
  flush();
}

async function later(form) {
  await flush();
  try {
    const answer = await ask("/api/later", { queue: room.queue, item: form.dataset.item });
    items = [];
    take(answer);
  } catch (error) {
    problem(error.status ? error.message : "The server can't be reached; try again.");
  }
}

function press(form, button) {
  const field = name => form.elements[name].value.trim();
  const edited = () => ({ prompt: field("prompt"), completion: field("completion") });
  const label = (button.querySelector(".what span") || button.querySelector("span") || button).textContent;
  const verb = button.name;
  if (verb === "later") return later(form);
  if (verb === "skip") {
    const reason = field("reason_text") || form.querySelector("[name=reason]:checked").value;
    return say("skip", null, reason, `skipped: ${reason}`);
  }
  if (verb === "approve" || verb === "reject") return say(verb, null, "", verb === "approve" ? "approved" : "rejected");
  if (verb === "correct" && button.value === "edited") return say(verb, edited(), "", "corrected");
  if (verb === "adjudicate" && button.value === "edited") return say(verb, { verb: "correct", ...edited() }, "", "corrected");
  if (verb === "adjudicate" && isPair && button.value.startsWith("{")) return say(verb, JSON.parse(button.value), "", label);
  return say(verb, button.value, "", label);
}

document.addEventListener("submit", e => {
  const form = e.target;
  if (form.matches("#undo-form")) {  // not form.id: that is its field of that name
    e.preventDefault();
    takeBack();
  }
  if (form.classList.contains("judge")) {
    e.preventDefault();
    if (e.submitter) press(form, e.submitter);
  }
});

document.addEventListener("keydown", e => {
  if (e.ctrlKey && e.key === "Enter") {
    $("item").querySelector("details.edit[open] button")?.click();
    return;
  }
  if (e.ctrlKey || e.metaKey || e.altKey || $("help").open) return;
  const item = $("item"), open = item.querySelector("details[open]");
  const isTyping = e.target.matches("textarea, select, input:not([type=radio])");
  if (e.key === "Escape" && open) { open.open = false; item.focus(); return; }
  if (isTyping) {
    if (e.key === "Enter" && e.target.name === "reason_text") { e.preventDefault(); item.querySelector("[name=skip]").click(); }
    return;
  }
  if (open?.classList.contains("skip")) {
    const radios = [...open.querySelectorAll("[type=radio]")];
    if (radios[e.key - 1]) { e.preventDefault(); radios[e.key - 1].checked = true; open.querySelector("[name=skip]").click(); }
    else if (e.key === "Enter") { e.preventDefault(); open.querySelector("[name=skip]").click(); }
    return;
  }
  const key = e.key.toLowerCase();
  const keyed = [...item.querySelectorAll("button[data-key]")].find(b => b.dataset.key === key && !b.hidden);
  const act = keyed ? () => keyed.click()
    : key === "a" ? () => (item.querySelector("button.suggested") || item.querySelector("button.given"))?.click()
    : key === "s" || key === "e" ? () => unfold(item.querySelector(key === "s" ? "details.skip" : "details.edit"))
    : key === "u" ? takeBack
    : key === "/" && item.querySelector(".search") ? () => item.querySelector(".search").focus()
    : key === "?" ? () => $("help").showModal() : null;
  if (act && !e.repeat) { e.preventDefault(); act(); }
});

function unfold(details) {
  if (!details) return;
  details.open = true;
  details.querySelector("[type=radio]:checked, textarea[name=completion]").focus();
}

$("help-open").hidden = false;
$("help-open").addEventListener("click", () => $("help").showModal());
window.addEventListener("online", flush);
document.addEventListener("visibilitychange", () => { if (!document.hidden) flush(); });
if (waiting().some(([, s]) => s.item === items[0]?.id)) {  // judged before the reload
  items = [];
  isCurrent = false;
  show();
}
enhance();
flush();
