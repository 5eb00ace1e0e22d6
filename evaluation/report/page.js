// Search, filter and order of the case list. Without this script the page shows all of it, in order.
const list = document.getElementById("case-list");
const controls = document.getElementById("controls");
if (list && controls) {
  const field = (name) => controls.querySelector(`[name=${name}]`);
  const cases = [...list.children];
  const texts = new Map();
  const textOf = (one) => {
    if (!texts.has(one)) {
      texts.set(
        one,
        [...one.querySelectorAll("bdi")].map((text) => text.textContent).join(" ").toLowerCase(),
      );
    }
    return texts.get(one);
  };
  const ORDER = { unmade: 0, failed: 1, forgotten: 2, held: 3 };
  const inOrder = (a, b) => a.dataset.at - b.dataset.at;
  const failedFirst = (a, b) => ORDER[a.dataset.state] - ORDER[b.dataset.state] || inOrder(a, b);
  const filter = () => {
    const words = field("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const run = field("run").value, state = field("state").value;
    let shown = 0;
    for (const one of cases) {
      const fits = (!run || one.dataset.run === run) && (!state || one.dataset.state === state) &&
        words.every((word) => textOf(one).includes(word));
      one.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = `${shown} of ${cases.length} shown`;
  };
  const order = () =>
    list.append(...cases.toSorted(field("order").value === "failed" ? failedFirst : inOrder));
  controls.addEventListener("input", filter);
  field("order").addEventListener("change", order);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  filter();
}
