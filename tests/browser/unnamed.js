/* Controls, regions and pictures that have no name for a screen reader. */
() => Array.from(document.querySelectorAll("button, input, select, a, summary, [role=region], img, svg[role=img]"))
  .filter((item) => !(item.getAttribute("aria-label") || item.textContent.trim() || item.alt
    || (item.labels && item.labels.length)
    || (item.getAttribute("aria-labelledby") || "").split(" ").some((id) => document.getElementById(id))))
  .map((item) => item.outerHTML.slice(0, 80))
