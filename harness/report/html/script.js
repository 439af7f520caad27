"use strict";
// What it puts into the page are its own words, as text; what models wrote stands there already.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  root.classList.add("js");
  for (const one of all(".js-only")) one.hidden = false;
  for (const one of all(".no-js-only")) one.hidden = true;

  // Colours: as the system, light, dark.
  const themes = ["", "light", "dark"];
  const theme = document.getElementById("theme");
  const stored = () => {
    try { return localStorage.getItem("harness-theme") || ""; } catch { return ""; }
  };
  const paint = (name) => {
    if (name) root.dataset.theme = name; else delete root.dataset.theme;
    theme.querySelector("span").textContent = name || "as the system";
  };
  paint(themes.includes(stored()) ? stored() : "");
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "") + 1) % themes.length];
    paint(next);
    try { localStorage.setItem("harness-theme", next); } catch { /* it holds for this page */ }
  });

  // The matrix: filters.
  const table = document.getElementById("matrix-table");
  if (table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const words = new Map(rows.map((row) =>
      [row, `${row.textContent} ${row.dataset.title}`.toLowerCase()]));
    const form = document.getElementById("filters");
    const count = form.querySelector("[data-count]");
    const filter = () => {
      const wanted = (name) => form.querySelector(`[data-filter="${name}"]`).value;
      const text = wanted("text").trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = Boolean(
          (wanted("table") && row.dataset.table !== wanted("table")) ||
          (wanted("verdict") && row.dataset.verdict !== wanted("verdict")) ||
          (text && !words.get(row).includes(text)));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${rows.length} lines`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    filter();

    // Sorting: up, down, and back to the order of the page. What has no value stands last.
    const sort = (button) => {
      const head = button.closest("th");
      const now = head.getAttribute("aria-sort");
      const next = now === "ascending" ? "descending" : now === "descending" ? "" : "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      const place = Number(button.dataset.sort);
      const numbers = button.dataset.kind !== "text";
      const sign = next === "descending" ? -1 : 1;
      const value = (row) => row.cells[place].dataset.value;
      const sorted = next ? [...rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (numbers ? Number(x) - Number(y) : x.localeCompare(y, "en"));
      }) : rows;
      if (next) head.setAttribute("aria-sort", next);
      body.append(...sorted);
    };
    // On a phone the headings are chips above the lines, and this is all that says what they are for.
    table.tHead.rows[0].setAttribute("aria-label", "Sort by");
    for (const button of all("button[data-sort]", table)) {
      button.addEventListener("click", () => sort(button));
    }
  }

  // A link to what stands inside something closed opens it.
  const reveal = () => {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    const own = target.querySelector(":scope > details");
    if (own) {
      own.open = true;
      own.querySelector("summary").focus({ preventScroll: true });
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal();
  });
  for (const button of all("[data-open]")) {
    button.addEventListener("click", () => {
      for (const one of all(".story > details")) one.open = Boolean(button.dataset.open);
    });
  }

  // The readers: one output at a time.
  const start = (reader) => {
    const items = all(".item", reader);
    const texts = items.map((item) => item.textContent.toLowerCase());
    const choice = reader.querySelector("[data-show]");
    const search = reader.querySelector("[data-search]");
    const place = reader.querySelector("[data-place]");
    const [before, after] = all("[data-step]", reader);
    let found = [];
    let at = 0;
    const show = () => {
      for (const item of items) item.classList.toggle("current", item === found[at]);
      place.textContent = found.length ? `${at + 1} of ${found.length}` : "none found";
      // Not `disabled`, which would take the focus away from under the reader's finger.
      before.setAttribute("aria-disabled", String(at <= 0));
      after.setAttribute("aria-disabled", String(at >= found.length - 1));
    };
    const filter = () => {
      const present = found[at];
      const text = search.value.trim().toLowerCase();
      found = items.filter((item, i) =>
        (!choice.value || item.dataset.of.split(" ").includes(choice.value)) &&
        (!text || texts[i].includes(text)));
      // Without a filter it stays where it is.
      at = choice.value || text ? 0 : Math.max(found.indexOf(present), 0);
      show();
    };
    const step = (by, focus) => {
      const next = at + by;
      if (next < 0 || next >= found.length) return;
      at = next;
      show();
      if (focus) found[at].focus({ preventScroll: true });
    };
    choice.addEventListener("input", filter);
    search.addEventListener("input", filter);
    before.addEventListener("click", () => step(-1, false));
    after.addEventListener("click", () => step(1, false));
    reader.closest("details").addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest("input, select")) return;
      const by = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      step(by, true);
    });
    filter();
  };
  for (const reader of all("[data-reader]")) {
    const box = reader.closest("details");
    if (box.open) start(reader);
    else box.addEventListener("toggle", () => start(reader), { once: true });
  }
})();
