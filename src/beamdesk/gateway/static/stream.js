// Drives the stream client (selkies-core.js): the only module that knows its globals, messages and elements.
// Checked against version 2.1.0, whose hash the gateway pins (gateway/webclient.py).

import { boot, say } from "./words.js";

const ROLE_BY_TOKEN = "?token=session"; // makes the client take its role from the server; the gateway adds the real token

const RESTART_MS = 500;
const SERVER_SAYS = [
  ["audio_enabled", "true"],
  ["enable_binary_clipboard", "true"],
  ["enable_sharing", "false"],
  ["enable_shared", "false"],
  ["enable_player2", "false"],
  ["enable_player3", "false"],
  ["enable_player4", "false"],
  ["enable_dual_mode", "false"],
  ["enable_basic_auth", "false"],
  ["enable_metrics_http", "false"],
  ["microphone_enabled", "false"],
  ["webcam_enabled", "false"],
  ["gamepad_enabled", "false"],
  ["command_enabled", "false"],
  ["printing_enabled", "false"],
];

/**
 * Events: `picture` (the first frame is painted), `lost` (detail.superseded), `clipboard` (detail.text), `sound` (detail.on,
 * detail.possible), `numbers` (detail.latency, detail.rate; null where unknown), `menu` (the person pressed Ctrl+Shift+M).
 */
export class Stream extends EventTarget {
  #transport = /** @type {any} */ (null);
  #superseded = false;
  #stopped = false;
  #restart = 0;

  /** Load the client and connect. @param {string} clientUrl */
  async start(clientUrl) {
    this.#prepare();
    window.addEventListener("message", (event) => this.#onMessage(event));
    await import(clientUrl);
    const address = location.pathname;
    history.replaceState(null, "", address + ROLE_BY_TOKEN);
    const title = document.title;
    Object.defineProperty(document, "title", { configurable: true, get: () => title, set: () => {} }); // a desktop names no tab
    /** @type {any} */ (window).selkiesCoreInitialize();
    /** @type {any} */ (window).__selkiesAuthProbe = undefined; // asks after every loss whether a login is needed; we ask ourselves
    history.replaceState(null, "", address);
    document.getElementById("overlayInput")?.setAttribute("aria-label", say("screen"));
    this.#watchPicture();
    this.#post({ type: "statsOpen", open: true });
    window.setInterval(() => this.#tellNumbers(), 1000);
  }

  /** Whether the browser has what a stream needs. */
  static get possible() {
    return "VideoDecoder" in window;
  }

  /** End the connection and do not come back. */
  stop() {
    this.#stopped = true;
    /** @type {any} */ (window).__selkiesModeSwitching = true; // the client's own switch against reconnecting
    this.#transport?.close();
  }

  /** Give text to the desktop's clipboard. @param {string} text */
  sendClipboard(text) {
    this.#post({ type: "clipboardUpdateFromUI", text });
  }

  /** @param {boolean} on */
  setSound(on) {
    this.#post({ type: "pipelineControl", pipeline: "audio", enabled: on });
  }

  showKeyboard() {
    this.#post({ type: "showVirtualKeyboard" });
  }

  /** Give the keyboard back to the desktop. */
  focus() {
    document.getElementById("overlayInput")?.focus({ preventScroll: true });
  }

  #prepare() {
    const page = /** @type {any} */ (window);
    page.__SELKIES_DEFER_INITIALIZATION = true;
    page.__SELKIES_STREAMING_MODE__ = "websockets";
    page.isAudioInitializing = true; // opening the sound device takes longer than the first picture; see #watchPicture
    // The policy of this page admits no script from a data: address; the gateway serves the same worklet as a file.
    const load = AudioWorklet.prototype.addModule;
    AudioWorklet.prototype.addModule = function (url, options) {
      const isPlayback = String(url).startsWith("data:") && decodeURIComponent(String(url)).includes("audio-frame-processor");
      return load.call(this, isPlayback ? boot.worklet : url, options);
    };
    try {
      const prefix = (location.origin + location.pathname).replace(/[^a-zA-Z0-9._-]/g, "_");
      localStorage.setItem(`${prefix}_isGamepadEnabled`, "false"); // no polling of game pads
      // What every desktop's server says of these: known beforehand, the client need not send its settings a second time, which
      // would restart the picture.
      for (const [name, value] of SERVER_SAYS) localStorage.setItem(`${prefix}_${name}`, value);
      sessionStorage.removeItem(`${prefix}_prefer_software_decode`);
    } catch {
      // storage is blocked: the client has defaults
    }
    Object.defineProperty(page, "selkiesTransport", {
      configurable: true,
      get: () => this.#transport,
      set: (transport) => this.#adopt(transport),
    });
  }

  /** Follow each socket that the client opens. @param {any} transport */
  #adopt(transport) {
    this.#transport = transport;
    this.#superseded = false;
    if (transport === null) return; // the page is being left
    transport.addEventListener("message", (/** @type {{data: unknown}} */ event) => {
      if (typeof event.data === "string" && event.data.startsWith("KILL ")) this.#superseded = true;
    });
    transport.addEventListener("close", (/** @type {{reason?: string}} */ event) => {
      if (this.#stopped || transport !== this.#transport) return;
      /** @type {any} */ (window).isAudioInitializing = true; // again: first the picture
      const superseded = this.#superseded || /superseded/i.test(event.reason ?? "");
      this.#tell("lost", { superseded });
    });
  }

  // The client hides its status line with the first picture of each connection, even where it is hidden already: a short
  // interruption leaves the last picture standing. A MutationObserver would not see that.
  #watchPicture() {
    const names = document.getElementById("status-display")?.classList;
    if (!names) throw new Error("the stream client has no status line");
    const add = names.add.bind(names);
    names.add = (...added) => {
      add(...added);
      if (!added.includes("hidden")) return;
      this.#tell("picture", {});
      /** @type {any} */ (window).isAudioInitializing = false; // the next sound packet opens the device
    };
  }

  /** @param {MessageEvent} event */
  #onMessage(event) {
    if (event.origin !== location.origin || typeof event.data !== "object" || event.data === null) return;
    const message = event.data;
    if (message.type === "clipboardContentUpdate" && typeof message.text === "string" && !message.secret) {
      this.#tell("clipboard", { text: message.text });
    } else if (message.type === "toggleDashboard") {
      this.#tell("menu", {});
    } else if (message.type === "serverSettings") {
      this.#tell("sound", { possible: message.payload?.audio_enabled?.value === true });
    } else if (message.type === "pipelineStatusUpdate") {
      if (typeof message.audio === "boolean") this.#tell("sound", { on: message.audio });
      if (message.video === false) this.#restartPicture();
    }
  }

  // Reconnecting slowly, the client can switch its picture off after it has come back (its "frozen" timer runs on). A visible page
  // always wants one.
  #restartPicture() {
    window.clearTimeout(this.#restart);
    this.#restart = window.setTimeout(() => {
      if (document.hidden || this.#stopped || this.#transport?.readyState !== WebSocket.OPEN) return;
      this.#post({ type: "pipelineControl", pipeline: "video", enabled: true });
    }, RESTART_MS);
  }

  #tellNumbers() {
    const latest = /** @type {any} */ (window).stream_stats?.latest;
    const latency = Number.isFinite(latest?.rtt_ms) && latest.rtt_ms > 0 ? latest.rtt_ms : null;
    this.#tell("numbers", { latency, rate: Number.isFinite(latest?.fps) ? latest.fps : null });
  }

  /** @param {object} message */
  #post(message) {
    window.postMessage(message, location.origin);
  }

  /** @param {string} type @param {object} detail */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
