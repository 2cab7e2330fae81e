// The page: a file is read, twins of it are made and drawn.

import { detectBeats, resample } from "./beats.js";
import { loadTwin } from "./twin.js";

const LIMB = {  // of leads I and II
  III: [-1, 1], aVR: [-0.5, -0.5], aVL: [1, -0.5], aVF: [-0.5, 1],
};
const ROWS = [
  ["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"],
  ["III", "aVF", "V3", "V6"],
];
const SECONDS = 10;
const $ = (id) => document.getElementById(id);
let twin, leads;

// The leads of a .csv file, 10 s in mV; as data/array_files.py reads it.
export function readCsv(text, names) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const notes = lines.filter((line) => line.startsWith("#")).join(" ");
  const [head, ...rows] = lines.filter((line) => !line.startsWith("#"));
  const columns = (head ?? "").split(",").map((x) =>
    x.trim().replaceAll('"', "").toUpperCase());
  const cells = rows.map((row) =>
    row.split(",").map((x) => (x.trim() ? Number(x) : 0)));
  const column = (name) => {
    const place = columns.indexOf(name.toUpperCase());
    return place < 0 ? null : Float64Array.from(cells, (row) => row[place]);
  };
  let rate = Number(/sampling_rate\s*=\s*([^,\s]+)/.exec(notes)?.[1]);
  const time = column("time");
  if (!rate && time) rate = (time.length - 1) / (time.at(-1) - time[0]);
  if (!(rate > 0))
    throw new Error("a line '# sampling_rate=500,units=mV' is needed");
  const unit = /units\s*=\s*([^,\s]+)/.exec(notes)?.[1] ?? "mV";
  const factor = { v: 1e3, mv: 1, uv: 1e-3 }[unit.toLowerCase()];
  if (!factor) throw new Error(`units=${unit} must be V, mV or uV`);
  const count = Math.round(SECONDS * rate);
  if (cells.length < count)
    throw new Error(`${(cells.length / rate).toFixed(1)} s must be 10 s`);
  const found = Object.fromEntries(names.map((name) => [name, column(name)]));
  for (const [name, [first, second]] of Object.entries(LIMB))
    if (!found[name] && found.I && found.II)
      found[name] = found.I.map((v, t) => first * v + second * found.II[t]);
  const missing = names.filter((name) => !found[name]);
  if (missing.length) throw new Error(`no lead ${missing.join(", ")}`);
  const made = names.map((name) =>
    found[name].slice(0, count).map((v) => factor * v));
  if (!made.every((lead) => lead.every(Number.isFinite)))
    throw new Error("what stands for a sample must be a number");
  return made;
}

// Draws an ECG as 3 x 4 leads and a strip of lead II.
export function draw(canvas, ecg, names, title, color) {
  const [mm, second, mV] = [4, 100, 40], left = 24;  // 25 mm/s, 10 mm/mV
  canvas.width = left * 2 + SECONDS * second;
  canvas.height = 4 * 110 + 40;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x * mm <= Math.max(canvas.width, canvas.height); x++) {
    pen.fillStyle = x % 5 ? "#fbe9e9" : "#f2c4c4";
    pen.fillRect(x * mm, 0, 1, canvas.height);
    pen.fillRect(0, x * mm, canvas.width, 1);
  }
  const line = (name, from, to, middle, place) => {
    const lead = ecg[names.indexOf(name)], rate = lead.length / SECONDS;
    pen.beginPath();
    for (let t = Math.ceil(from * rate); t < to * rate; t++)
      pen.lineTo(left + place + (t / rate - from) * second,
        middle - lead[t] * mV);
    pen.strokeStyle = pen.fillStyle = "#111";
    pen.stroke();
    pen.font = "13px sans-serif";
    pen.fillText(name, left + place + 2, middle - 46);
  };
  ROWS.forEach((row, r) => row.forEach((name, c) =>
    line(name, 2.5 * c, 2.5 * (c + 1), 90 + 110 * r, 250 * c)));
  line("II", 0, SECONDS, 90 + 330, 0);
  pen.fillStyle = color;
  pen.font = "bold 18px sans-serif";
  pen.fillText(title, left, 24);
}

function show(title, ecg, color) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", title);
  draw(canvas, ecg, twin.card.leads, title, color);
  $("ecgs").append(canvas);
}

function say(text) {
  $("status").textContent = text;
}

async function read(file) {
  $("ecgs").replaceChildren();
  leads = undefined;
  $("make").disabled = true;
  try {
    leads = readCsv(await file.text(), twin.card.leads);
    show(`reference: ${file.name}`, leads, "#111");
    const at = leads.map((lead) => resample(lead, 1024));
    const beats = detectBeats(at, twin.card.filter, twin.card.rate);
    if (beats.length > 1) {
      const mean = (beats.at(-1) - beats[0]) / (beats.length - 1);
      $("now-rate").value = $("rate").value = Math.round(60 / mean);
    }
    $("make").disabled = false;
    say("Say what it shows and what the twins shall show.");
  } catch (error) {
    say(`Not read: ${error.message}`);
  }
}

const chosen = (id) => [...$(id).selectedOptions].map((x) => x.value);
const number = (id) => ($(id).value === "" ? null : Number($(id).value));

async function make() {
  $("make").disabled = true;
  try {
    const who = [number("age"), $("sex").value || null];
    const now = twin.condition(chosen("now"), number("now-rate"), ...who);
    const stated = twin.stateRhythm(chosen("then"), number("rate"));
    const then = twin.condition(stated, number("rate"), ...who);
    const base = await twin.extract(leads, now);
    for (const old of [...$("ecgs").children].slice(1)) old.remove();
    for (let i = 0; i < number("count"); i++) {
      say(`Twin ${i + 1} of ${number("count")} ...`);
      await new Promise((done) => setTimeout(done));  // shows what is said
      const ecg = await twin.generate(base, then, number("seed") * 1000 + i);
      const each = twin.card.leads.map((_, lead) =>
        ecg.filter((_, k) => k % 12 === lead));
      const asked = `${stated.join(", ")}, ${number("rate")} bpm`;
      show(`synthetic: ${asked}`, each, "#b00020");
    }
    const taken = stated.length === chosen("then").length ? "" :
      ` No statement said which rhythm they shall have: “${stated[0]}” was` +
      " taken; choose another if it is not that.";
    say(`Done. What is drawn in red letters is synthetic.${taken}`);
  } catch (error) {
    say(`Not made: ${error.message}`);
  }
  $("make").disabled = false;
}

async function start() {
  try {
    twin = await loadTwin();
  } catch (error) {
    say(`The twin could not be loaded: ${error.message}`);
    return;
  }
  for (const id of ["now", "then"])
    for (const text of twin.card.statements) $(id).add(new Option(text));
  $("file").disabled = false;
  $("file").onchange = () => read($("file").files[0]);
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
  };
  $("make").onclick = make;
  say("Choose or drop a 12-lead ECG as .csv.");
}

start();
