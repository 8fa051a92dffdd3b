/* Texts whose contrast with what lies under them is below 4.5. */
() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => {
    const n = text.match(/[\d.]+/g).map(Number);
    return n.length < 4 ? [...n, 1] : n;
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => a * v + (1 - a) * below[i]);
  const ground = (item) => {
    const layers = [];
    for (let at = item; at; at = at.parentElement) {
      layers.push(parse(getComputedStyle(at).backgroundColor));
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const item = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !item.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "TITLE", "DESC", "OPTION"].includes(item.tagName.toUpperCase())) continue;
    const style = getComputedStyle(item);
    const ink = item instanceof SVGElement ? style.fill : style.color;
    const below = ground(item);
    const [light, dark] = [luminance(over(parse(ink), below)), luminance(below)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${item.tagName} ${item.textContent.slice(0, 40)}`);
  }
  return poor;
}
