// Curves of an experiment's jobs over their seeds: mean, and a band of one standard deviation. The page names the jobs and the address.

import { Chart, keepFitting } from "./charts.js";
import { Groups } from "./groups.js";
import { inOrder } from "./words.js";

/** The curves of one job: metric -> points. */
class Job {
  constructor(element, index) {
    this.id = element.dataset.job;
    this.label = element.dataset.label;
    this.button = element.querySelector("button");
    this.curves = new Map();
    this.isHidden = false;
    element.querySelector(".swatch").classList.add(`series-${index % 8 + 1}`);
  }

  values(key) {
    return new Map((this.curves.get(key) ?? []).map((point) => [point.step, point.mean]));
  }

  bands(key) {
    const spread = (this.curves.get(key) ?? []).filter((point) => point.std !== null);
    return new Map(spread.map((point) => [point.step, [point.mean - point.std, point.mean + point.std]]));
  }
}

class Board {
  constructor(root) {
    this.root = root;
    this.groups = new Groups(root);
    this.hint = this.groups.box.querySelector(".empty");
    this.light = root.querySelector(".live");
    this.jobs = [...root.querySelectorAll("[data-job]")].map((element, index) => new Job(element, index));
    this.charts = new Map();
    this.etag = "";
  }

  async load() {
    const headers = { accept: "application/json", ...(this.etag && { "if-none-match": this.etag }) };
    try {
      const response = await fetch(this.root.dataset.over, { headers, cache: "no-store" });
      this.told(response.ok || response.status === 304);
      if (!response.ok) return;
      this.etag = response.headers.get("etag") ?? "";
      this.take((await response.json()).curves);
    } catch {
      this.told(false);
    }
  }

  told(isUp) {
    if (!this.light) return;
    this.light.hidden = false;
    this.light.classList.toggle("on", isUp);
    this.light.textContent = isUp ? "live" : "not live";
  }

  take(curves) {
    for (const job of this.jobs) job.curves = new Map(curves.filter((one) => one.job_id === job.id).map((one) => [one.key, one.points]));
    const keys = inOrder(new Set(curves.map((one) => one.key)));
    if (keys.length && this.hint) { this.hint.remove(); this.hint = null; }
    for (const key of keys) {
      if (this.charts.has(key)) this.charts.get(key).update();
      else this.charts.set(key, new Chart(this.groups.grid(key), key, this.jobs, this.groups.note(key)));
    }
    for (const key of keys) this.groups.grid(key).append(this.charts.get(key).figure);
  }

  async start() {
    for (const job of this.jobs) {
      job.button.addEventListener("click", () => {
        job.isHidden = !job.isHidden;
        job.button.setAttribute("aria-pressed", String(!job.isHidden));
        for (const chart of this.charts.values()) chart.make();
      });
    }
    keepFitting(this.groups.box, this.charts);
    await this.load();
    const seconds = Number(this.root.dataset.seconds);
    if (seconds) setInterval(() => { if (!document.hidden && document.querySelector("#live[data-every]")) this.load(); }, seconds * 1000);
  }
}

for (const root of document.querySelectorAll("[data-over]")) new Board(root).start();
