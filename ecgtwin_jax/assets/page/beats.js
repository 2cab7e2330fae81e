// The median beat of ten seconds, as beats/median_beat.py and beats/rhythm.py
// find it; see there for what the numbers are. A signal is an array of leads.

const RATE = 500, BEFORE = 200, AFTER = 320;  // samples at 500 Hz
const HALF = 40, SHIFT = 20, SAME_SHAPE = 0.75;
const SAMPLES = 80, MEDIAN_R = 31;  // of the result, at the model's rate

const range = (n) => Array.from({ length: n }, (_, i) => i);
const median = (values) => {
  const x = Float64Array.from(values).sort(), half = x.length >> 1;
  return x.length % 2 ? x[half] : (x[half - 1] + x[half]) / 2;
};
const argmax = (x) => x.reduce((best, v, i) => (v > x[best] ? i : best), 0);
const norm = (x) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));
const rint = (x) => {  // as NumPy: halves to the even number
  const up = Math.round(x);
  return up - x === 0.5 && up % 2 ? up - 1 : up;
};
const clip = (i, n) => Math.min(Math.max(i, 0), n - 1);

// scipy.signal.resample of one lead.
export function resample(x, count) {
  const n = x.length, top = Math.min(n, count) >> 1;
  const even = Math.min(n, count) % 2 === 0;
  const table = (size) => range(size).map((i) => (2 * Math.PI * i) / size);
  const [ci, si] = [Math.cos, Math.sin].map((f) => table(n).map(f));
  const [co, so] = [Math.cos, Math.sin].map((f) => table(count).map(f));
  const out = new Float64Array(count);
  for (let k = 0; k <= top; k++) {
    let re = 0, im = 0;
    for (let i = 0, at = 0; i < n; i++, at = (at + k) % n) {
      re += x[i] * ci[at];
      im -= x[i] * si[at];
    }
    const last = even && k === top;
    const weight = (k === 0 || (last && n <= count) ? 1 : 2) / n;
    if (last) im = 0;
    for (let j = 0, at = 0; j < count; j++, at = (at + k) % count)
      out[j] += weight * (re * co[at] - im * so[at]);
  }
  return out;
}

function sosfilt(sections, start, x) {
  sections.forEach(([b0, b1, b2, , a1, a2], s) => {
    let [z0, z1] = start[s].map((z) => z * start.first);
    x = x.map((v) => {
      const y = b0 * v + z0;
      z0 = b1 * v - a1 * y + z1;
      z1 = b2 * v - a2 * y;
      return y;
    });
  });
  return x;
}

function sosfiltfilt([sections, zi], x, pad) {
  const n = x.length, end = x[n - 1];
  let y = Float64Array.from([
    ...range(pad).map((i) => 2 * x[0] - x[pad - i]),
    ...x,
    ...range(pad).map((i) => 2 * end - x[n - 2 - i]),
  ]);
  for (let turn = 0; turn < 2; turn++) {
    const start = Object.assign([...zi], { first: y[0] });
    y = sosfilt(sections, start, y).reverse();
  }
  return y.slice(pad, pad + n);
}

// scipy.ndimage.gaussian_filter1d, or its first derivative; beyond the ends
// stands 0, or the signal reflected.
function gaussian(x, sigma, { truncate = 4, reflect = true, slope = false }) {
  const radius = Math.floor(truncate * sigma + 0.5), n = x.length;
  const away = range(2 * radius + 1).map((i) => i - radius);
  let weights = away.map((k) => Math.exp((-0.5 * k * k) / sigma ** 2));
  const total = weights.reduce((a, b) => a + b);
  weights = weights.map((w, i) =>
    (w / total) * (slope ? away[i] / sigma ** 2 : 1));
  return Float64Array.from(x, (_, i) => {
    let sum = 0;
    for (const k of away) {
      let j = i + k;
      if (j < 0 || j >= n) {
        if (!reflect) continue;
        j = j < 0 ? -j - 1 : 2 * n - 1 - j;
      }
      sum += weights[k + radius] * x[j];
    }
    return sum;
  });
}

function typicalPeak(x, window) {
  return median(range(Math.floor(x.length / window)).map((i) =>
    x.slice(i * window, (i + 1) * window).reduce((a, b) => Math.max(a, b))));
}

function findPeaks(x, height, prominence, distance) {
  let peaks = [];
  for (let i = 1; i < x.length - 1; i++) {
    if (x[i - 1] >= x[i]) continue;
    let ahead = i + 1;
    while (ahead < x.length - 1 && x[ahead] === x[i]) ahead++;
    if (x[ahead] < x[i]) peaks.push((i + ahead - 1) >> 1);
    i = ahead - 1;
  }
  peaks = peaks.filter((p) => x[p] >= height);
  const kept = new Set();
  for (const p of [...peaks].sort((a, b) => x[b] - x[a]))
    if (![...kept].some((q) => Math.abs(p - q) < distance)) kept.add(p);
  return peaks.filter((p) => kept.has(p)).filter((p) => {
    const lowest = (step) => {
      let low = x[p];
      for (let i = p; i >= 0 && i < x.length && x[i] <= x[p]; i += step)
        low = Math.min(low, x[i]);
      return low;
    };
    return x[p] - Math.max(lowest(-1), lowest(1)) >= prominence;
  });
}

// Seconds at which most leads show a QRS complex (detect_beats_by_energy).
export function detectBeats(leads, filter, rate) {
  const window = Math.round(2 * rate);
  const envelopes = leads.map((lead) => {
    const x = sosfiltfilt(filter, lead.map((v) => v - lead[0]), 27);
    const power = gaussian(x.map((v) => v * v), 0.03 * rate, {
      truncate: 3, reflect: false,
    });
    const size = Math.sqrt(typicalPeak(power, window)) + 1e-9;
    return power.map((v) => Math.sqrt(v) / size);
  });
  const rank = Math.floor(0.4 * (leads.length - 1));
  const envelope = Float64Array.from(envelopes[0], (_, t) =>
    Float64Array.from(envelopes, (e) => e[t]).sort()[rank]);
  const peak = typicalPeak(envelope, window);
  if (median(envelope) >= 0.5 * peak) return [];
  const least = [0.35 * peak, 0.25 * peak, Math.round(0.25 * rate)];
  return findPeaks(envelope, ...least).map((p) => p / rate);
}

const gradient = (x) => Float64Array.from(x, (_, i) => {
  const [a, b] = [clip(i - 1, x.length), clip(i + 1, x.length)];
  return (x[b] - x[a]) / (b - a);
});

// Pieces of all leads around each middle, [beat][lead][sample].
const cut = (leads, middles, before, after) => middles.map((middle) =>
  leads.map((x) => Float64Array.from({ length: before + after }, (_, i) =>
    x[clip(middle - before + i, x.length)])));

const medianOf = (pieces) => pieces[0].map((lead, l) =>
  lead.map((_, i) => median(pieces.map((piece) => piece[l][i]))));

function align(leads, middles) {
  const start = cut(leads.map(gradient), middles, HALF + SHIFT, HALF + SHIFT);
  const window = (beat, lag) =>
    beat.map((lead) => lead.subarray(lag, lag + 2 * HALF));
  const product = (a, b) => a.reduce((sum, lead, l) =>
    lead.reduce((s, v, i) => s + v * b[l][i], sum), 0);
  const size = (a) => Math.sqrt(product(a, a)) + 1e-12;
  const core = start.map((beat) => window(beat, SHIFT));
  const alike = core.map((a) => median(core.map((b) =>
    product(a, b) / (size(a) * size(b)))));
  let template = core[argmax(alike)], best = [], usual = [];
  for (let turn = 0; turn < 2; turn++) {
    const whole = Math.sqrt(product(template, template));
    best = [], usual = [];
    for (const beat of start) {
      const scores = range(2 * SHIFT + 1).map((lag) => {
        const piece = window(beat, lag);
        return product(piece, template) / whole / size(piece);
      });
      best.push(argmax(scores));
      usual.push(scores[best.at(-1)] >= SAME_SHAPE);
    }
    if (!usual.some(Boolean)) return [middles, usual];
    template = medianOf(start.map((beat, i) => window(beat, best[i]))
      .filter((_, i) => usual[i]));
  }
  return [middles.map((middle, i) => middle + best[i] - SHIFT), usual];
}

// scipy.interpolate.PchipInterpolator at one place.
function pchip(x, y) {
  const h = range(x.length - 1).map((i) => x[i + 1] - x[i]);
  const d = h.map((w, i) => (y[i + 1] - y[i]) / w);
  const edge = (h0, h1, d0, d1) => {
    const s = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1);
    if (Math.sign(s) !== Math.sign(d0)) return 0;
    const over = Math.sign(d0) !== Math.sign(d1);
    return over && Math.abs(s) > 3 * Math.abs(d0) ? 3 * d0 : s;
  };
  const n = x.length;
  const slopes = n === 2 ? [d[0], d[0]] : x.map((_, i) => {
    if (i === 0) return edge(h[0], h[1], d[0], d[1]);
    if (i === n - 1) return edge(h[n - 2], h[n - 3], d[n - 2], d[n - 3]);
    if (d[i - 1] * d[i] <= 0) return 0;
    const [a, b] = [2 * h[i] + h[i - 1], h[i] + 2 * h[i - 1]];
    return (a + b) / (a / d[i - 1] + b / d[i]);
  });
  return (at) => {
    let i = 0;
    while (i < n - 2 && at >= x[i + 1]) i++;
    const t = (at - x[i]) / h[i], u = 1 - t;
    return y[i] * u * u * (1 + 2 * t) + y[i + 1] * t * t * (1 + 2 * u)
      + h[i] * (slopes[i] * t * u * u - slopes[i + 1] * t * t * u);
  };
}

function removeWander(leads, middles) {
  const [first, last, width] = [80, 25, 6], n = leads[0].length;
  const slopes = medianOf(cut(leads.map(gradient), middles, first, -last));
  const speed = slopes[0].map((_, i) => norm(slopes.map((lead) => lead[i])));
  const smooth = gaussian(speed, width / 2, { reflect: false });
  const inner = smooth.slice(width, -width).map((v) => -v);
  const quiet = argmax(inner) + width;
  const knots = middles.map((middle) => middle - first + quiet)
    .filter((knot) => knot >= width && knot < n - width);
  if (knots.length < 2)
    return leads.map((x) => x.map(((level) => (v) => v - level)(median(x))));
  return leads.map((x) => {
    const levels = knots.map((knot) =>
      x.slice(knot - width, knot + width).reduce((a, b) => a + b)
      / (2 * width));
    const curve = pchip(knots, levels);
    return x.map((v, i) =>
      v - curve(Math.min(Math.max(i, knots[0]), knots.at(-1))));
  });
}

// First and last sample of QRS (delineation._find_qrs), or none.
function findQrs(beat) {
  const slopes = beat.map((x) => gaussian(x, 2, { slope: true }));
  const speed = slopes[0].map((_, i) => norm(slopes.map((x) => x[i])));
  const [first, last] = [BEFORE - 75, BEFORE + 80];
  const top = first + argmax(speed.slice(first, last));
  const fastest = (i, n) => Math.max(...range(n).map((k) =>
    speed[clip(i - n / 2 + k, speed.length)]));
  const before = range(top - first).map((k) => fastest(first + k, 6));
  const calmest = Math.min(...before), still = 0.09 * speed[top];
  const onset = first
    + before.findLastIndex((x) => x <= calmest + 0.03 * speed[top]);
  let offset = top;
  while (offset < last + 10 && fastest(offset, 10) >= still) offset++;
  return calmest >= still || offset >= last + 10
    ? null : [onset + 3, offset - 5];
}

// The second derivatives of a cubic spline through samples.
function bend(y) {
  const n = y.length, m = new Float64Array(n), c = new Float64Array(n);
  for (let i = 1; i < n - 1; i++) {
    const pivot = 4 - c[i - 1];
    c[i] = 1 / pivot;
    m[i] = (6 * (y[i + 1] - 2 * y[i] + y[i - 1]) - m[i - 1]) / pivot;
  }
  for (let i = n - 2; i > 0; i--) m[i] -= c[i] * m[i + 1];
  return m;
}

function spline(y) {
  const m = bend(y);
  return (at) => {
    const i = Math.min(Math.floor(at), y.length - 2), t = at - i, u = 1 - t;
    return u * y[i] + t * y[i + 1]
      + ((u ** 3 - u) * m[i] + (t ** 3 - t) * m[i + 1]) / 6;
  };
}

// {beat: Float32Array (80 x 12), found: 0 or 1} of 1024 samples of 12 leads.
export function findMedianBeat(leads, filter, rate) {
  const none = { beat: new Float32Array(SAMPLES * leads.length), found: 0 };
  const seconds = detectBeats(leads, filter, rate);
  if (seconds.length < 2) return none;
  let x = leads.map((lead) => resample(lead, 10 * RATE));
  let [middles, usual] = align(x, seconds.map((s) => rint(s * RATE)));
  middles = middles.filter((_, i) => usual[i]);
  if (middles.length < 2) return none;
  x = removeWander(x, middles);
  const whole = middles.filter((middle) =>
    middle >= BEFORE && middle + AFTER <= x[0].length);
  if (whole.length < 2) return none;
  const beat = medianOf(cut(x, whole, BEFORE, AFTER));
  const [first, last] = findQrs(beat) ?? [BEFORE - 50, BEFORE + 50];
  const pieces = beat.map((lead) =>
    gaussian(lead.slice(first, last + 1), 2, {}));
  const r = first + argmax(pieces[0].map((_, i) =>
    norm(pieces.map((piece) => piece[i]))));
  const curves = beat.map(spline);
  const made = Float32Array.from(none.beat, (_, i) => {
    const at = r + (Math.floor(i / 12) - MEDIAN_R) * (RATE / rate);
    return curves[i % 12](Math.min(Math.max(at, 0), beat[0].length - 1));
  });
  return { beat: made, found: 1 };
}
