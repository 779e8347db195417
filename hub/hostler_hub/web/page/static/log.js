// Logs of steps, followed as they grow. A log is bytes from a worker, and nobody vouches for them:
// they become text nodes in spans of a fixed set of classes, and nothing else.
"use strict";

(() => {
  const LINE = 4096; // a longer one is cut for the view
  const LINES = 10000; // of which so many are kept
  const TAIL = 1024 * 1024; // of a longer log this much is shown
  const PAUSE_MS = 800;

  // SGR's codes, as classes: colours f0 to f7 and g0 to g7, bold, dim, italic, underlined.
  class Style {
    constructor() { this.reset(); }
    reset() { this.fore = ""; this.back = ""; this.flags = new Set(); }
    get classes() { return [this.fore, this.back, ...this.flags].filter(Boolean).join(" "); }
    apply(codes) {
      for (let i = 0; i < codes.length; i += 1) {
        const code = codes[i];
        if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4; // other palettes: as it was
        else this.one(code);
      }
    }
    one(code) {
      const flags = { 1: "b", 2: "d", 3: "i", 4: "u" };
      if (code === 0) this.reset();
      else if (flags[code]) this.flags.add(flags[code]);
      else if (code === 22) { this.flags.delete("b"); this.flags.delete("d"); }
      else if (code === 23) this.flags.delete("i");
      else if (code === 24) this.flags.delete("u");
      else if (code >= 30 && code <= 37) this.fore = `f${code - 30}`;
      else if (code >= 90 && code <= 97) this.fore = `f${code - 90}`;
      else if (code === 39) this.fore = "";
      else if (code >= 40 && code <= 47) this.back = `g${code - 40}`;
      else if (code >= 100 && code <= 107) this.back = `g${code - 100}`;
      else if (code === 49) this.back = "";
    }
  }

  // ECMA-48: CSI, then OSC and its like up to BEL or ST, then two-character escapes.
  // eslint-disable-next-line no-control-regex
  const ESCAPE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^_`a-~])/y;
  const UNFINISHED = /^\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)$/;

  class Screen {
    constructor(pre) {
      this.pre = pre;
      this.style = new Style();
      this.rest = "";
      this.returned = false;
      this.newLine();
    }
    newLine() {
      this.line = document.createElement("div");
      this.length = 0;
      this.returned = false;
      this.line.append("\n");
      this.pre.append(this.line);
      if (this.pre.childElementCount > LINES) this.pre.firstElementChild.remove();
    }
    put(text) {
      if (!text) return;
      if (this.returned) { // what follows a carriage return replaces the line, as progress does
        this.line.replaceChildren("\n");
        this.length = 0;
        this.returned = false;
      }
      for (let at = 0; at < text.length;) {
        if (this.length >= LINE) this.newLine();
        const piece = text.slice(at, at + LINE - this.length);
        const span = document.createElement("span");
        span.className = this.style.classes;
        span.textContent = piece;
        this.line.lastChild.before(span);
        this.length += piece.length;
        at += piece.length;
      }
    }
    write(more) {
      const text = this.rest + more;
      this.rest = "";
      let from = 0;
      for (let at = 0; at < text.length;) {
        const c = text.charCodeAt(at);
        if (c >= 32 && c !== 127 && !(c >= 128 && c < 160) || c === 9) { at += 1; continue; }
        this.put(text.slice(from, at));
        if (c === 27) {
          ESCAPE.lastIndex = at;
          const found = ESCAPE.exec(text);
          if (!found && text.length - at < LINE && UNFINISHED.test(text.slice(at))) {
            this.rest = text.slice(at); // it goes on in the next piece
            return;
          }
          if (found && found[2] === "m") this.style.apply(found[1].split(/[;:]/).map(Number));
          at += found ? found[0].length : 1;
        } else {
          if (c === 10) this.newLine();
          if (c === 13) this.returned = text.charCodeAt(at + 1) !== 10;
          at += 1;
        }
        from = at;
      }
      this.put(text.slice(from));
    }
  }

  class Log {
    constructor(place, url, size) {
      this.url = url;
      this.offset = Math.max(0, size - TAIL);
      this.decoder = new TextDecoder();
      this.root = document.createElement("div");
      this.root.className = "log";
      const head = document.createElement("div");
      head.className = "log-head";
      this.note = document.createElement("span");
      const whole = document.createElement("a");
      whole.href = `${url}/whole`;
      whole.textContent = "download";
      head.append(this.note, whole);
      if (this.offset) {
        const cut = document.createElement("span");
        cut.textContent = `the first ${this.offset} bytes are not shown`;
        head.append(cut);
      }
      this.pre = document.createElement("pre");
      this.pre.tabIndex = 0;
      this.root.append(head, this.pre);
      place.append(this.root);
      this.screen = new Screen(this.pre);
      this.open = true;
      this.follow();
    }
    close() { this.open = false; this.root.remove(); }
    async follow() {
      let complete = false;
      while (this.open && !complete) {
        try {
          complete = await this.more();
        } catch {
          this.note.textContent = "the hub does not answer";
        }
        if (!complete) await new Promise((wake) => setTimeout(wake, PAUSE_MS));
      }
    }
    // Whether it is the end for good.
    async more() {
      for (;;) {
        const answer = await fetch(`${this.url}?offset=${this.offset}`);
        if (!answer.ok) { this.note.textContent = `the hub answered ${answer.status}`; return true; }
        const data = new Uint8Array(await answer.arrayBuffer());
        const complete = answer.headers.get("hostler-log-complete") === "true";
        const following = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 40;
        this.screen.write(this.decoder.decode(data, { stream: !complete }));
        if (following) this.pre.scrollTop = this.pre.scrollHeight;
        this.offset = Number(answer.headers.get("hostler-log-end"));
        this.note.textContent = complete ? "complete" : "growing";
        if (complete) return true;
        if (!data.length) return false;
      }
    }
  }

  const logs = new Map();
  const shown = new Set(); // opened by itself once; a visitor may have closed it since

  const toggle = (button) => {
    const url = button.dataset.log;
    if (logs.has(url)) {
      logs.get(url).close();
      logs.delete(url);
      return;
    }
    const place = [...document.querySelectorAll("[data-place]")].find((each) => each.dataset.place === url);
    logs.set(url, new Log(place, url, Number(button.dataset.size)));
  };

  const openWhatMatters = () => {
    for (const button of document.querySelectorAll("[data-log][data-open]")) {
      if (shown.has(button.dataset.log)) continue;
      shown.add(button.dataset.log);
      if (!logs.has(button.dataset.log)) toggle(button);
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-log]");
    if (button) toggle(button);
  });
  document.addEventListener("hostler:fresh", openWhatMatters);
  openWhatMatters();
})();
