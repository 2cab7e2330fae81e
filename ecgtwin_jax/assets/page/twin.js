// A twin's programs, one ECG at a time. Nothing here leaves the browser.

import { findMedianBeat, resample } from "./beats.js";
import * as ort from "./ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1;
const STATEMENTS = 18, SAMPLES = 1024;
const TYPES = [
  [Float32Array, "float32"], [Int32Array, "int32"], [Int8Array, "int8"],
  [Uint8Array, "bool"],
];

// mulberry32: numbers between 0 and 1 that a seed repeats.
export function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (((x ^ (x >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

const normal = (draw) =>
  Math.sqrt(-2 * Math.log(draw())) * Math.cos(2 * Math.PI * draw());

export async function loadTwin() {
  const load = async (name, options) => {
    const answer = await fetch(name, options);
    if (!answer.ok) throw new Error(`${name} is not there`);
    return answer;
  };
  const card = await (await load("page.json")).json();
  // The browser itself compares what comes with the sha256.
  const loadChecked = async (name) => {
    const bytes = card.sha256[name].match(/../g).map((x) => parseInt(x, 16));
    const integrity = `sha256-${btoa(String.fromCharCode(...bytes))}`;
    try {
      return await (await load(name, { integrity })).arrayBuffer();
    } catch {
      await load(name);  // says so if it is not there
      throw new Error(`${name} is not as exported: copy it anew`);
    }
  };
  const names = ["extract", "noise", "sample", "decode"];
  if (card.beats) names.push("rhythm");
  const programs = {};
  for (const name of names) {
    const data = await loadChecked(`${name}.onnx`);
    programs[name] = await ort.InferenceSession.create(data);
  }
  const table = new Float32Array(await loadChecked("statements.f32"));
  return new Twin(card, programs, table);
}

class Twin {
  constructor(card, programs, table) {
    Object.assign(this, { card, programs, table });
  }

  // Runs a program on arrays by name; takes of them what it has use for.
  async run(name, values) {
    const program = this.programs[name], feeds = {};
    for (const { name: input, shape } of program.inputMetadata) {
      const [, type] = TYPES.find(([kind]) => values[input] instanceof kind);
      feeds[input] = new ort.Tensor(type, values[input], shape);
    }
    const made = await program.run(feeds);
    return Object.fromEntries(
      Object.entries(made).map(([key, tensor]) => [key, tensor.data]));
  }

  // The statements, and in front the sinus node's where none says a rhythm; as
  // state_rhythm of inference/ecgtwin_loader.py.
  stateRhythm(statements, heartRate) {
    const { said, sinus } = this.card.rhythm;
    const fits = sinus.filter(([, low, high]) =>
      low <= heartRate && heartRate <= high);
    const full = statements.length === STATEMENTS;
    const named = statements.some((s) => said[this.card.statements.indexOf(s)]);
    if (!statements.length || named || full || !fits.length) return statements;
    return [fits[0][0], ...statements];
  }

  // What is not known of age and sex ("F" or "M") stays null.
  condition(statements, heartRate, age = null, sex = null) {
    const numbers = statements.map((s) => this.card.statements.indexOf(s));
    if (!numbers.length || numbers.length > STATEMENTS || numbers.includes(-1))
      throw new Error(`choose 1 to ${STATEMENTS} of the statements`);
    if (!(heartRate >= 20 && heartRate <= 300))
      throw new Error("the heart rate must be in 20..300 bpm");
    if (age !== null && !(age >= 0 && age <= 120))
      throw new Error("the age must be in 0..120 years");
    const width = this.table.length / this.card.statements.length;
    const rows = new Float32Array(STATEMENTS * width);
    const mask = new Uint8Array(STATEMENTS);
    numbers.forEach((number, i) => {
      const from = number * width;
      rows.set(this.table.subarray(from, from + width), i * width);
      mask[i] = 1;
    });
    const known = [heartRate, age, sex === null ? null : "FM".indexOf(sex)];
    const [mean, std] = this.card.patient;
    const patient = known.map((v, i) =>
      v === null ? NaN : (v - mean[i]) / std[i]);
    const stated = this.card.premature[0].map((_, kind) =>
      numbers.some((number) => this.card.premature[number][kind]));
    return {
      statements: rows,
      mask,
      patient: Float32Array.from(patient),
      usual: Float32Array.of(60 / heartRate),
      rate: Float32Array.of(heartRate),
      premature: Uint8Array.from(stated),
    };
  }

  // The base vector of 12 leads of 10 s in mV.
  async extract(leads, condition) {
    const at = leads.map((x) =>
      Float64Array.from(Float32Array.from(resample(x, SAMPLES))));
    const signal = Float32Array.from({ length: SAMPLES * at.length }, (_, i) =>
      at[i % at.length][Math.floor(i / at.length)]);
    const { beat, found } = findMedianBeat(
      at, this.card.filter, this.card.rate);
    const seen = { signal, beat, found: Int8Array.of(found) };
    return (await this.run("extract", { ...condition, ...seen })).base;
  }

  // One ECG, samples by leads in mV at 102.4 Hz. Normal and uniform numbers are
  // drawn from the seed where they are not given.
  async generate(base, condition, seed, given = {}) {
    const draw = uniforms(seed);
    const normals = Float32Array.from(
      { length: 128 * this.card.channels }, () => normal(draw));
    const chance = Float32Array.from(
      { length: 4 * (this.card.max_beats + 1) }, draw);
    const row = { ...condition, base, normals, uniforms: chance, ...given };
    if (this.card.beats) Object.assign(row, await this.run("rhythm", row));
    Object.assign(row, await this.run("noise", row));
    const latents = await this.run("sample", row);
    return (await this.run("decode", latents)).ecg;
  }
}
