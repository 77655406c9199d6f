// Live curves: one chart a metric, one line a run. The page names the runs and the stream; values come from /v1/runs/{id}/metrics.

import { Chart, keepFitting } from "./charts.js";
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

class Board {
  constructor(root) {
    this.root = root;
    this.grid = root.querySelector(".curves");
    this.hint = this.grid.querySelector(".empty");
    this.light = root.querySelector(".live");
    this.runs = [...root.querySelectorAll("[data-run]")].map((element) => new Run(element));
    this.charts = new Map();
    this.runs.forEach((run, index) => { if (run.swatch) run.swatch.classList.add(`series-${index % 8 + 1}`); });
    this.isLoading = false;
    this.isWanted = false;
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
    for (const key of keys) {
      if (this.charts.has(key)) this.charts.get(key).update();
      else this.charts.set(key, new Chart(this.grid, key, this.runs));
    }
    for (const key of keys) this.grid.append(this.charts.get(key).figure);
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
    keepFitting(this.grid, this.charts);
  }
}

for (const root of document.querySelectorAll("[data-curves]")) new Board(root).start();
