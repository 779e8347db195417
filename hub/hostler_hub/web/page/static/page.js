// Keeps the page fresh: asks for it again, and puts the new content in place of the old.
// The server has escaped everything; nothing here makes HTML of text.
"use strict";

(() => {
  const main = document.getElementById("main");
  const fresh = document.getElementById("fresh");
  if (!main) return;

  // What a visitor has opened or is typing stays as it is.
  const keepers = "[data-place], form[data-keep]";
  const keyOf = (node) => node.dataset.place || node.getAttribute("action");
  const keyOfDetails = (node) => node.dataset.key || node.querySelector("summary").textContent;

  const replace = (next) => {
    const kept = new Map();
    for (const node of main.querySelectorAll(keepers)) kept.set(keyOf(node), node);
    const opened = new Set();
    for (const node of main.querySelectorAll("details[open]")) opened.add(keyOfDetails(node));
    for (const node of next.querySelectorAll(keepers)) {
      const old = kept.get(keyOf(node));
      if (old && (old.dataset.place || old.contains(document.activeElement))) node.replaceWith(old);
    }
    for (const node of next.querySelectorAll("details")) node.open = opened.has(keyOfDetails(node));
    main.dataset.live = next.dataset.live;
    main.replaceChildren(...next.childNodes);
    document.dispatchEvent(new Event("hostler:fresh"));
  };

  const isTyping = () => {
    const active = document.activeElement;
    return active && main.contains(active) && active.matches("input, select");
  };

  const look = async () => {
    const wait = Number(main.dataset.live);
    if (!wait) return;
    if (!document.hidden && !isTyping()) {
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (answer.status === 401) {
          location.assign("/login");
          return;
        }
        if (answer.ok) {
          const text = await answer.text();
          const next = new DOMParser().parseFromString(text, "text/html").getElementById("main");
          if (next && !isTyping()) replace(next);
        }
        fresh.textContent = answer.ok ? "" : `the hub answered ${answer.status}`;
      } catch {
        fresh.textContent = "the hub does not answer";
      }
    }
    setTimeout(look, Number(main.dataset.live) || wait);
  };
  setTimeout(look, Number(main.dataset.live) || 0);
})();
