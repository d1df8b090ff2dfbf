"use strict";
// The page of one seat: it shows what the server sends, and sends back numbers of actions. It knows no game's rules.
const one = id => document.getElementById(id);
const MANY = 80; // choices, from which on they are typed or clicked on the board
let socket = null, wait = 500, ended = false;
let game = null, view = null, at = 0, chosen = [], clicked = [], advice = null, links = null, pace = 0, running = false;
let heldKeys = [], lost = null;

function made(tag, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return element;
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function trouble(text) {
  one("trouble").textContent = text;
  one("trouble").hidden = !text;
}

// What the keyboard is on may go away until the next move: it is then on the same again, or on the first choice.
function keepingFocus(change) {
  const had = document.activeElement;
  if (had && had !== document.body && had.matches(":focus-visible")) lost = had;
  change();
  const now = document.activeElement;
  if (!lost || (now !== had && now !== document.body)) return;
  let to = lost;
  if (!to.isConnected && lost.dataset.slot) to = one("slots").querySelector("[data-slot='" + lost.dataset.slot + "']");
  else if (!to.isConnected) to = one("choices").querySelector("[data-action='" + lost.dataset.action + "']") || one("choices").firstElementChild;
  if (!to || to.disabled || !to.getClientRects().length) return;
  if (to !== now) to.focus();
  lost = null;
}

function address() {
  const found = new URLSearchParams(location.hash.slice(1));
  return found.get("g") ? { game: found.get("g"), key: found.get("k") || "" } : null;
}

function connect() {
  const token = new URLSearchParams(location.search).get("token") || "";
  const scheme = location.protocol === "https:" ? "wss://" : "ws://";
  socket = new WebSocket(scheme + location.host + "/socket?token=" + encodeURIComponent(token));
  socket.onopen = () => {
    wait = 500;
    trouble("");
    const place = address();
    one("status").textContent = "opening the game";
    send(place ? { join: place } : { new: {} });
  };
  socket.onmessage = event => {
    const message = JSON.parse(event.data);
    if (message.joined) joined(message.joined);
    if (message.view) { view = message.view; keepingFocus(fresh); }
    if (message.hint && view && message.hint.turn === view.turn) { advice = message.hint; advise(); choices(); }
    if (message.error) { trouble(message.error); if (!view) one("status").textContent = "no game"; }
  };
  socket.onclose = event => {
    running = false;
    if (ended) return;
    if (event.code === 1008) return trouble("the server refuses this page: " + event.reason);
    one("status").textContent = "not connected";
    trouble("The server has stopped or cannot be reached. What was played is saved; this page goes on when it is back.");
    setTimeout(connect, wait);
    wait = Math.min(5000, 2 * wait);
  };
}

function joined(what) {
  game = what.game;
  pace = what.pace;
  view = null;
  trouble("");
  const own = Object.entries(what.links).find(([seat]) => Number(seat) === what.seat);
  history.replaceState(null, "", "#g=" + game + "&k=" + own[1]);
  links = Object.entries(what.links).filter(([seat]) => Number(seat) !== what.seat);
  one("invite").hidden = !links.length;
  one("links").replaceChildren(...links.map(([seat, key]) => {
    const entry = made("li"), link = made("a", "seat " + seat);
    link.href = location.pathname + location.search + "#g=" + game + "&k=" + key;
    link.target = "_blank";
    link.rel = "noreferrer";
    entry.append(link);
    return entry;
  }));
  running = false;
  one("run").hidden = !pace;
}

function fresh() {
  at = 0;
  chosen = view.slots.map(() => null);
  clicked = [];
  advice = null;
  one("env").textContent = view.env;
  document.title = (view.yours ? "your move: " : "") + view.env;
  one("seats").textContent = view.names.map((name, seat) => "seat " + seat + ": " + name + " " + round(view.returns[seat])).join(", ");
  seatsToTake();
  status();
  one("undo").disabled = !view.undo;
  one("hint").disabled = !view.yours || running;
  if (view.over) running = false;
  one("run").textContent = running ? "pause" : "start";
  one("run").disabled = view.over;
  one("words").hidden = !view.text;
  one("text").textContent = view.text;
  played();
  if (!view.picture) one("words").open = true;
  draw();
  bounds();
  advise();
  choices();
}

// Only what is new is added, so that only that is read out.
function played() {
  const log = one("log"), first = Math.max(0, view.step - view.log.length);
  log.setAttribute("aria-live", pace ? "off" : "polite");
  for (; log.start < first && log.firstElementChild; log.start++) log.firstElementChild.remove();
  log.start = first;
  let same = 0;
  while (same < log.children.length && log.children[same].textContent === view.log[same]) same++;
  while (log.children.length > same) log.lastElementChild.remove();
  log.append(...view.log.slice(same).map(line => made("li", line)));
  log.scrollTop = log.scrollHeight;
}

function status() {
  let said = "waiting for " + (view.waiting.join(" and ") || "the others");
  if (view.over) said = "the game is over: " + view.result;
  else if (view.yours) said = running ? "playing" : "your move";
  if (one("status").textContent !== said) one("status").textContent = said;
}

function round(value) {
  return Math.round(value * 1000) / 1000;
}

function seatsToTake() {
  const alone = links && !links.length && view.names.length > 1 && view.names.filter(name => name !== "you" && name.startsWith("person")).length === 0;
  one("seat-label").hidden = !alone;
  if (alone && one("seat").children.length !== view.names.length) {
    one("seat").replaceChildren(...view.names.map((_, seat) => {
      const option = made("option", String(seat));
      option.value = seat;
      return option;
    }));
    one("seat").value = view.seat;
  }
}

function draw() {
  const picture = view.picture, board = one("board");
  board.toggleAttribute("hidden", !picture);
  if (!picture) return;
  const whole = picture.parts.join("");
  const source = picture.kind === "svg" ? "data:image/svg+xml;charset=utf-8," + encodeURIComponent(whole) : "data:image/webp;base64," + whole;
  const box = picture.kind === "svg" ? (picture.parts[0].match(/viewBox="([-\d. ]+)"/) || [])[1] : null;
  const turn = view.turn, probe = new Image();
  const place = (x, y, width, height) => {
    board.setAttribute("viewBox", [x, y, width, height].join(" "));
    const image = one("picture");
    image.setAttribute("href", source);
    for (const [name, value] of Object.entries({ x, y, width, height })) image.setAttribute(name, value);
    board.dataset.turn = turn;
  };
  if (box) place(...box.split(" ").map(Number));
  else {
    probe.onload = () => { if (view.turn === turn) place(0, 0, probe.naturalWidth, probe.naturalHeight); };
    probe.src = source;
  }
  places();
}

function places() {
  const group = one("places");
  group.replaceChildren();
  for (const [name, path] of Object.entries(view.shapes)) {
    if (!view.slots.some(slot => slot.choices.some(choice => choice[2].includes(name)))) continue;
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path"), title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    shape.setAttribute("d", path);
    shape.dataset.place = name;
    if (clicked.includes(name)) shape.classList.add("clicked");
    title.textContent = name;
    shape.append(title);
    shape.onclick = () => click(name);
    group.append(shape);
  }
}

function begins(choice, path) {
  return path.every((place, k) => choice[2][k] === place);
}

function click(place) {
  if (!view.slots.length) return;
  if (!clicked.length && view.slots.length > 1) {
    const open = view.slots.findIndex((slot, k) => k === at && slot.choices.some(choice => choice[2][0] === place));
    const found = open >= 0 ? open : view.slots.findIndex(slot => slot.choices.some(choice => choice[2][0] === place));
    if (found < 0) return;
    at = found;
  }
  const all = view.slots[at].choices;
  if (clicked.length && clicked[clicked.length - 1] === place) {
    const exact = all.filter(choice => choice[2].length === clicked.length && begins(choice, clicked));
    if (exact.length === 1) return pick(exact[0]);
  }
  let path = [...clicked, place];
  if (!all.some(choice => begins(choice, path))) {
    path = [place];
    if (!all.some(choice => begins(choice, path))) { if (view.slots.length > 1) { clicked = []; click(place); } return; }
  }
  clicked = path;
  const left = all.filter(choice => begins(choice, path));
  if (left.length === 1) return pick(left[0]);
  places();
  choices();
}

function pick(choice) {
  clicked = [];
  chosen[at] = choice;
  if (view.slots.length === 1) return submit();
  const next = chosen.indexOf(null);
  at = next >= 0 ? next : at;
  places();
  choices();
}

function submit() {
  const action = view.slots.map((slot, k) => (chosen[k] || slot.choices[0])[0]);
  send({ move: { turn: view.turn, action } });
}

function choices() {
  keepingFocus(listChoices);
}

function listChoices() {
  const several = view.slots.length > 1, slot = view.slots[at];
  one("send").hidden = !several;
  one("send").textContent = "send all " + view.slots.length;
  one("slots").hidden = !several;
  one("slots").replaceChildren(...(several ? view.slots.map((each, k) => {
    const entry = made("li"), button = made("button", each.heading + ": " + (chosen[k] || each.choices[0])[1] + (chosen[k] ? "" : " (unless you choose)"));
    button.type = "button";
    button.dataset.slot = k;
    if (k === at) button.setAttribute("aria-current", "true");
    button.onclick = () => { at = k; clicked = []; places(); choices(); };
    entry.append(button);
    return entry;
  }) : []));
  one("typed").hidden = !slot || (pace && running);
  const left = slot ? slot.choices.filter(choice => begins(choice, clicked)) : [];
  const shown = left.length > MANY ? [] : left;
  const best = advice ? Math.max(0, ...Object.values(advice.chances)) : 0;
  one("choices").replaceChildren(...shown.map(choice => {
    const chance = advice && !several ? advice.chances[choice[0]] : undefined;
    const button = made("button", choice[1] + (chance === undefined ? "" : " " + (100 * chance).toFixed(0) + "%"));
    button.type = "button";
    button.dataset.action = choice[0];
    if (chance !== undefined && chance === best) button.classList.add("best");
    button.onclick = () => pick(choice);
    return button;
  }));
  one("names").replaceChildren(...(slot ? slot.choices.slice(0, 1000) : []).map(choice => {
    const option = made("option");
    option.value = choice[1];
    return option;
  }));
}

function advise() {
  const said = [];
  if (advice && advice.plays) said.push("the adviser would play " + advice.plays);
  if (advice && advice.value !== null) said.push("the adviser expects " + round(advice.value));
  one("advice").textContent = said.join("; ");
}

function bounds() {
  const form = one("numbers"), asked = view.bounds;
  form.hidden = !asked || (pace && running);
  if (!asked || form.children.length) return;
  const fields = asked.map(([low, high], k) => {
    const label = made("label", "part " + (k + 1) + " (" + round(low) + " to " + round(high) + ") "), input = made("input");
    Object.assign(input, { type: "number", min: low, max: high, step: "any", value: round(Math.min(high, Math.max(low, 0))) });
    label.append(input);
    return label;
  });
  const button = made("button", "play");
  form.append(...fields, button);
}

one("numbers").onsubmit = event => {
  event.preventDefault();
  send({ move: { turn: view.turn, action: [...one("numbers").querySelectorAll("input")].map(input => Number(input.value)) } });
};
one("typed").onsubmit = event => {
  event.preventDefault();
  const slot = view && view.slots[at], word = one("name").value.trim();
  if (!slot || !word) return;
  const same = slot.choices.filter(choice => choice[1] === word);
  const near = same.length ? same : slot.choices.filter(choice => choice[1].toLowerCase() === word.toLowerCase());
  if (near.length !== 1) return trouble("no such move now: " + word);
  trouble("");
  one("name").value = "";
  pick(near[0]);
};
one("new").onclick = () => {
  trouble("");
  send({ new: one("seat-label").hidden ? {} : { seat: Number(one("seat").value) } });
};
one("undo").onclick = () => { trouble(""); send({ undo: { turn: view.turn } }); };
one("hint").onclick = () => { trouble(""); send({ hint: { turn: view.turn } }); };
one("send").onclick = submit;
one("run").onclick = () => {
  running = !running;
  one("run").textContent = running ? "pause" : "start";
  send({ run: running });
  choices();
};
document.addEventListener("keydown", event => {
  if (event.target.tagName === "INPUT" || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey || !view) return;
  if (running) {
    if (event.key === "Escape") return one("run").click();
    if (!heldKeys.includes(event.key)) { heldKeys.push(event.key); send({ keys: heldKeys.slice(-8) }); }
    if (event.key.startsWith("Arrow")) event.preventDefault();
    return;
  }
  if (/^[1-9]$/.test(event.key)) {
    const button = one("choices").children[Number(event.key) - 1];
    if (button) button.click();
  }
  const named = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" }[event.key];
  const move = named && view.slots.length === 1 && view.slots[0].choices.find(choice => choice[1] === named);
  if (move) { event.preventDefault(); pick(move); }
  if (event.key === "Escape") { clicked = []; places(); choices(); }
});
document.addEventListener("keyup", event => {
  if (!heldKeys.includes(event.key)) return;
  heldKeys = heldKeys.filter(key => key !== event.key);
  if (running) send({ keys: heldKeys });
});
addEventListener("pointerdown", () => { lost = null; });
addEventListener("blur", () => { heldKeys = []; if (running) send({ keys: [] }); });
addEventListener("hashchange", () => { const place = address(); if (place && place.game !== game) send({ join: place }); });
addEventListener("pagehide", () => { ended = true; });
addEventListener("pageshow", event => { if (event.persisted) { ended = false; connect(); } });
connect();
