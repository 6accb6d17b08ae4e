// What the server says of this session: its state, why it ended, and how long the desktop may still run.

import { boot } from "./words.js";

const REFRESH_MS = 30_000;

/** Events: `look` (detail: the server's answer, see Look in words.js), `tick` (detail.left_s, once a second). */
export class Session extends EventTarget {
  look = boot.look;
  #endsAt = performance.now() + boot.look.left_s * 1000;

  start() {
    window.setInterval(() => this.#tick(), 1000);
    window.setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    this.#tick();
  }

  /** Seconds until the desktop is stopped. */
  get left() {
    return Math.max(0, (this.#endsAt - performance.now()) / 1000);
  }

  /** Whether the browser's session is another one than this page's: opened again in another tab. */
  get replaced() {
    return this.look.session !== "" && this.look.session !== boot.look.session;
  }

  /** Ask the server. Returns false when it does not answer. */
  async refresh() {
    try {
      const answer = await fetch("/session", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      return this.#take(await answer.json());
    } catch {
      return false;
    }
  }

  /** Ask for more time. Returns an error text, or "" when it was granted. */
  async extend() {
    try {
      const answer = await fetch("/session/extend", { method: "POST", signal: AbortSignal.timeout(10_000) });
      const content = await answer.json();
      if (!answer.ok) return String(content.message ?? "");
      this.#take(content);
      return "";
    } catch {
      return boot.words.extend_failed;
    }
  }

  /** End the session; returns where to go now. */
  async end() {
    try {
      await fetch("/session/end", { method: "POST", keepalive: true, signal: AbortSignal.timeout(5000) });
    } catch {
      // the portal shows that the session is still there
    }
    return boot.look.portal;
  }

  /** @param {import("./words.js").Look} look */
  #take(look) {
    if (look.state === "unknown") return false;
    this.look = look;
    this.#endsAt = performance.now() + look.left_s * 1000;
    this.dispatchEvent(new CustomEvent("look", { detail: look }));
    this.#tick();
    return true;
  }

  #tick() {
    this.dispatchEvent(new CustomEvent("tick", { detail: { left_s: this.left } }));
  }
}
