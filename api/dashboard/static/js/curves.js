// Live curves: one chart a metric, one line a run. The page names the runs and the stream; values come from /v1/runs/{id}/metrics.

import { Chart, keepFitting } from "./charts.js";
import { Groups } from "./groups.js";
import { follow } from "./streams.js";
import { inOrder } from "./words.js";

const MAX_POINTS = 1000;
const PAUSE_MS = 1500;
const POLL_MS = 5000;

/** The points of one run. */
class Run {
  constructor(element) {
    this.id = element.dataset.run;
    this.label = element.dataset.label;
    this.isLive = element.dataset.live === "true";
    this.swatch = element.querySelector(".swatch");
    this.metrics = new Map(); // metric -> step -> value, null where it was not finite
    this.lastStep = -1;
  }

  values(key) {
    return this.metrics.get(key) ?? new Map();
  }

  /** Fetches what is new; true where something was. */
  async load() {
    const query = new URLSearchParams({ from_step: String(this.lastStep + 1), max_points: String(MAX_POINTS) });
    const response = await fetch(`/v1/runs/${this.id}/metrics?${query}`, { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`${response.status}`);
    let isNew = false;
    for (const series of (await response.json()).series) {
      if (!this.metrics.has(series.key)) this.metrics.set(series.key, new Map());
      const values = this.metrics.get(series.key);
      for (const point of series.points) {
        values.set(point.step, point.value);
        this.lastStep = Math.max(this.lastStep, point.step);
        isNew = true;
      }
    }
    return isNew;
  }
}

/** The runs of a job together: at each step the mean of the seeds that have a value, how far they spread, and how many they are. */
class Together {
  constructor(runs, mode) {
    this.runs = runs;
    this.mode = mode;
    this.label = "mean";
    this.known = new Map();
  }

  /** Forgets what it has reckoned, after new values came. */
  renew() {
    this.known.clear();
  }

  points(key) {
    if (!this.known.has(key)) {
      const seeds = this.runs.map((run) => run.values(key));
      const points = new Map();
      for (const step of new Set(seeds.flatMap((seed) => [...seed.keys()]))) {
        const values = seeds.map((seed) => seed.get(step)).filter((value) => value !== undefined && value !== null);
        const mean = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
        points.set(step, { mean, n: values.length, band: this.band(values, mean) });
      }
      this.known.set(key, points);
    }
    return this.known.get(key);
  }

  band(values, mean) {
    if (values.length < 2) return null;
    if (this.mode === "range") return [Math.min(...values), Math.max(...values)];
    const std = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
    return [mean - std, mean + std];
  }

  values(key) {
    return new Map([...this.points(key)].map(([step, point]) => [step, point.mean]));
  }

  bands(key) {
    return new Map([...this.points(key)].filter(([, point]) => point.band).map(([step, point]) => [step, point.band]));
  }

  count(key, step) {
    return this.points(key).get(step)?.n ?? 0;
  }
}

class Board {
  constructor(root) {
    this.root = root;
    this.groups = new Groups(root);
    this.hint = this.groups.box.querySelector(".empty");
    this.buttons = [...root.querySelectorAll("[data-mode]")];
    this.light = root.querySelector(".live");
    this.runs = [...root.querySelectorAll("[data-run]")].map((element) => new Run(element));
    this.charts = new Map();
    this.runs.forEach((run, index) => { if (run.swatch) run.swatch.classList.add(`series-${index % 8 + 1}`); });
    this.isLoading = false;
    this.isWanted = false;
    this.choose(this.buttons.length ? this.buttons[0].dataset.mode : "each");
    for (const button of this.buttons) button.addEventListener("click", () => this.choose(button.dataset.mode));
  }

  /** Draws each seed, or their mean with a band. */
  choose(mode) {
    this.lines = mode === "each" ? this.runs : [new Together(this.runs, mode)];
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    this.root.querySelector(".legend")?.classList.toggle("is-plain", mode !== "each");
    for (const chart of this.charts.values()) chart.show(this.lines);
  }

  async load() {
    if (this.isLoading) { this.isWanted = true; return; }
    this.isLoading = true;
    try {
      const news = await Promise.all(this.runs.map((run) => run.load()));
      if (news.some(Boolean)) this.draw();
    } catch {
      this.light?.classList.replace("on", "off");
    } finally {
      setTimeout(() => {
        this.isLoading = false;
        if (this.isWanted) { this.isWanted = false; this.load(); }
      }, PAUSE_MS);
    }
  }

  draw() {
    const keys = inOrder(new Set(this.runs.flatMap((run) => [...run.metrics.keys()])));
    if (keys.length && this.hint) { this.hint.remove(); this.hint = null; }
    for (const line of this.lines) line.renew?.();
    for (const key of keys) {
      if (this.charts.has(key)) this.charts.get(key).update();
      else this.charts.set(key, new Chart(this.groups.grid(key), key, this.lines, this.groups.note(key)));
    }
    for (const key of keys) this.groups.grid(key).append(this.charts.get(key).figure);
  }

  async start() {
    await this.load();
    if (this.root.dataset.stream) {
      const load = () => this.load();
      follow(() => this.root.dataset.stream, { metric: load, run: load, job: load, end: load }, (isOpen) => {
        if (!this.light) return;
        this.light.hidden = false;
        this.light.classList.toggle("on", isOpen);
        this.light.textContent = isOpen ? "live" : "not live";
      });
      setInterval(() => { if (!document.hidden) this.load(); }, POLL_MS);
    }
    keepFitting(this.groups.box, this.charts);
  }
}

for (const root of document.querySelectorAll("[data-curves]")) new Board(root).start();
