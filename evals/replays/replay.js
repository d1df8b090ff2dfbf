"use strict";
const replay = JSON.parse(document.getElementById("replay").textContent);
const one = id => document.getElementById(id);
const last = replay.steps.length;
let now = 0, timer = null;

function made(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function number(value) {
  return String(Math.round(value * 1000) / 1000);
}

function picture(frame) {
  const { kind, parts, list } = replay.pictures;
  if (kind === "none") return "";
  const whole = list[frame].map(part => parts[part]).join("");
  return kind === "webp" ? "data:image/webp;base64," + whole : "data:image/svg+xml;charset=utf-8," + encodeURIComponent(whole);
}

function played(step) {
  return Object.entries(step.said).map(([seat, said]) => [Number(seat), said]).sort((a, b) => a[0] - b[0]);
}

function words(step) {
  return played(step).map(([seat, said]) => replay.names[seat] + ": " + said.name).join("; ") || "nobody acts";
}

function describe(step) {
  const box = one("said");
  box.replaceChildren();
  for (const [seat, said] of played(step)) {
    box.append(made("h2", replay.names[seat] + " plays " + said.name));
    if (said.value !== null) box.append(made("p", "expects " + number(said.value)));
    if (!said.chances.length) continue;
    const table = made("table");
    for (const [name, chance] of said.chances) {
      const row = made("tr"), bar = made("meter"), cell = made("td");
      bar.value = chance;
      bar.setAttribute("aria-label", name);
      cell.append(bar);
      row.append(made("td", name), cell, made("td", (100 * chance).toFixed(1) + "%", "number"));
      table.append(row);
    }
    box.append(table);
  }
}

function show(to, keep) {
  now = Math.max(0, Math.min(last, to));
  const source = picture(replay.frames[now]);
  if (source) one("picture").src = source;
  one("picture").alt = now < last ? "before step " + now : "the end";
  one("place").value = now;
  const earned = replay.names.map((name, seat) => {
    let sum = 0;
    for (let t = 0; t < now; t++) sum += replay.steps[t].rewards[seat];
    return name + " " + number(sum);
  });
  const gained = now ? replay.steps[now - 1].rewards.map(number).join(", ") : "";
  one("count").textContent = "step " + now + " of " + last;
  one("earned").textContent = "earned so far: " + earned.join(", ") + (now ? " (last step: " + gained + ")" : "");
  if (now < last) describe(replay.steps[now]);
  else one("said").replaceChildren(made("h2", "the game is " + { terminated: "over", truncated: "cut at its limit", unfinished: "not finished" }[replay.end]));
  document.querySelectorAll("#moves [aria-current]").forEach(element => element.removeAttribute("aria-current"));
  const entry = one("moves").children[now];
  if (entry) {
    entry.firstChild.setAttribute("aria-current", "step");
    if (!keep) one("moves").scrollTop = entry.offsetTop - one("moves").offsetTop - 60;
  }
  if (!keep) history.replaceState(null, "", "#" + now);
  if (now === last) stop();
}

function stop() {
  clearInterval(timer);
  timer = null;
  one("play").textContent = "play";
}

function play() {
  if (timer) return stop();
  if (now === last) show(0);
  one("play").textContent = "stop";
  timer = setInterval(() => show(now + 1), Math.max(20, 1000 / Math.min(50, replay.frames_per_second)));
}

replay.steps.forEach((step, at) => {
  const entry = made("li"), button = made("button", words(step));
  button.type = "button";
  button.onclick = () => show(at, true);
  entry.append(button);
  one("moves").append(entry);
});
one("first").onclick = () => show(0);
one("back").onclick = () => show(now - 1);
one("play").onclick = play;
one("next").onclick = () => show(now + 1);
one("last").onclick = () => show(last);
one("place").oninput = event => show(Number(event.target.value));
addEventListener("hashchange", () => show(Number(location.hash.slice(1)) || 0));
document.addEventListener("keydown", event => {
  if (event.target.id === "place" || event.ctrlKey || event.metaKey || event.altKey) return;
  const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: last }[event.key];
  if (to !== undefined) { show(to); event.preventDefault(); }
  if (event.key === "p") play();
});
show(Number(location.hash.slice(1)) || 0);
