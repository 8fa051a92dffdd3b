"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const one = (selector) => document.querySelector(selector);

  /* Theme: the system's, or the reader's choice, kept where the browser lets a page keep it. */
  const themes = ["system", "light", "dark"];
  const kept = () => { try { return localStorage.getItem("specbench-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("specbench-theme", name); } catch { /* a private window keeps nothing */ } };
  const button = one("#theme");
  const setTheme = (name) => {
    if (name === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", name);
    button.textContent = `Theme: ${name}`;
    button.dataset.name = name;
  };
  setTheme(themes.includes(kept()) ? kept() : "system");
  button.addEventListener("click", () => {
    const name = themes[(themes.indexOf(button.dataset.name) + 1) % themes.length];
    setTheme(name);
    keep(name);
  });

  /* Tables: a heading sorts. Plain decoding stays on top, absent values at the bottom. */
  const key = (row, place) => {
    const cell = row.cells[place];
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text.toLowerCase();
  };
  const order = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en", { numeric: true });
  };
  const sort = (table, place, heading) => {
    const numeric = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    const direction = before === null ? (numeric ? "descending" : "ascending")
      : before === "descending" ? "ascending" : "descending";
    all("th[aria-sort]", table).forEach((th) => th.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).map((row) => [key(row, place), row]);
    rows.sort(([a, first], [b, second]) => {
      const plain = ("baseline" in second.dataset) - ("baseline" in first.dataset);
      if (plain) return plain;
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * order(a, b);
    });
    rows.forEach(([, row]) => body.append(row));
  };
  all("table.sortable").forEach((table) => {
    all("thead th", table).forEach((heading, place) => {
      const control = document.createElement("button");
      control.type = "button";
      control.className = "sort";
      control.textContent = heading.textContent;
      heading.replaceChildren(control);
      control.addEventListener("click", () => sort(table, place, heading));
    });
  });

  /* Filter: lines and panels go, marks of charts fade. Plain decoding always stays. */
  const box = one("#filter");
  const classes = all(".classes input");
  const filtered = all("[data-label]").filter((item) => !("baseline" in item.dataset));
  const counted = all("#headline tbody tr[data-label]").filter((item) => !("baseline" in item.dataset));
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const allowed = new Set(classes.filter((item) => item.checked).map((item) => item.value));
    const matches = (item) => allowed.has(item.dataset.class)
      && (words.length === 0 || words.some((word) => item.dataset.label.toLowerCase().includes(word)));
    filtered.forEach((item) => {
      if (item instanceof SVGElement) item.classList.toggle("away", !matches(item));
      else item.hidden = !matches(item);
    });
    const shown = counted.filter(matches).length;
    one("#shown").textContent = `${shown} of ${counted.length} shown`;
  };
  box.addEventListener("input", filter);
  classes.forEach((item) => item.addEventListener("change", filter));
  filter();

  /* Tooltips: a chart's own titles, shown at once. */
  const tip = document.createElement("div");
  tip.id = "tooltip";
  tip.hidden = true;
  document.body.append(tip);
  all("svg.chart .mark, svg.chart .tip").forEach((item) => {
    const title = item.querySelector("title");
    if (title === null) return;
    const words = title.textContent;
    title.remove();
    item.addEventListener("pointermove", (event) => {
      tip.textContent = words;
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 16;
      const fits = below + tip.offsetHeight < innerHeight;
      tip.style.left = `${Math.max(4, left)}px`;
      tip.style.top = `${fits ? below : event.clientY - tip.offsetHeight - 10}px`;
    });
    item.addEventListener("pointerleave", () => { tip.hidden = true; });
  });

  /* Paper has no summaries to click: what is prose opens, tables of a chart's numbers stay away. */
  const prose = all("details.reading:not([open])");
  addEventListener("beforeprint", () => prose.forEach((item) => { item.open = true; }));
  addEventListener("afterprint", () => prose.forEach((item) => { item.open = false; }));

  /* Samples: one at a time. */
  const samples = all("#outputs > .sample");
  const choice = one("#choice");
  if (choice !== null) {
    const show = (place) => {
      const number = (place + samples.length) % samples.length;
      samples.forEach((item, index) => { item.hidden = index !== number; });
      choice.value = String(number);
    };
    choice.addEventListener("change", () => show(Number(choice.value)));
    one("#previous").addEventListener("click", () => show(Number(choice.value) - 1));
    one("#next").addEventListener("click", () => show(Number(choice.value) + 1));
    one("#samples").addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (event.key === "ArrowRight") show(Number(choice.value) + 1);
      else if (event.key === "ArrowLeft") show(Number(choice.value) - 1);
      else return;
      event.preventDefault();
    });
    show(0);
  }
})();
