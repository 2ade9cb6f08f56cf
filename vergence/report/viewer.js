// What the viewer does: which rollouts are listed, which one is shown, and the keys.

const app = find(".v-app");
const tools = find(".v-tools");
const list = find(".v-list");
const shown = find(".v-shown");
const panel = find(".v-panel");
const MOST_PRINTED = 24;
const state = { by: data.by, order: [], current: -1, siblings: false };

const groups = new Map();
data.rollouts.forEach((rollout, number) => {
  const key = `${rollout.step} ${rollout.scene}`;
  if (!groups.has(key)) groups.set(key, []);
  groups.get(key).push(number);
  rollout.group = groups.get(key);
});
for (const group of groups.values()) group.sort((one, other) => data.rollouts[one].sibling - data.rollouts[other].sibling);

// ------------------------------------------------------------------------------------------ the list

const rows = data.rollouts.map((rollout, number) => {
  const row = make("div", "v-row", "", { role: "option", id: `v-row-${number}`, "aria-selected": "false" });
  const answered = rollout.extracted === null ? "no answer" : rollout.extracted;
  const beside = rollout.status === "right" || !rollout.gold ? answered : `${answered}, not ${rollout.gold}`;
  const where = [rollout.step ? `step ${rollout.step}` : "", rollout.world, `${rollout.sibling + 1}/${rollout.group.length}`];
  row.append(
    make("span", `v-sign ${kindOf(rollout)}`, sign(rollout)),
    make("b", "", beside, { dir: "auto" }),
    make("span", "v-number"),
    make("small", "", [rollout.error || "", ...where].filter(Boolean).join(" · ")),
  );
  row.dataset.number = number;
  return row;
});

function wanted(rollout, asked) {
  if (asked.verdict && (rollout.status === "right") !== (asked.verdict === "right")) return false;
  if (asked.error && (rollout.error || "none") !== asked.error) return false;
  if (asked.world && rollout.world !== asked.world) return false;
  if (asked.step && String(rollout.step) !== asked.step) return false;
  return !asked.text || textOf(rollout).includes(asked.text);
}

function textOf(rollout) {
  rollout.text ??= [rollout.question, rollout.tokens.join(""), rollout.gold, rollout.extracted, rollout.scene]
    .join("\n")
    .toLowerCase();
  return rollout.text;
}

/** What a rollout is sorted by, and what its row says. */
function rank(number, sort) {
  const rollout = data.rollouts[number];
  return sort.startsWith("mean") ? mean(rollout, state.by) : rollout.advantage;
}

function refresh() {
  const asked = Object.fromEntries(new FormData(tools));
  asked.text = asked.text.trim().toLowerCase();
  const kept = state.order[state.current];
  const value = data.rollouts.map((_, number) => rank(number, asked.sort));
  state.order = [...data.rollouts.keys()].filter((number) => wanted(data.rollouts[number], asked));
  if (asked.sort !== "file") {
    const turn = asked.sort.endsWith("down") ? 1 : -1;
    const last = -turn * Infinity;
    state.order.sort((one, other) => turn * ((value[other] ?? last) - (value[one] ?? last)) || one - other);
  }
  for (const number of state.order) {
    rows[number].children[2].textContent = value[number] === null ? "" : figures(value[number], !asked.sort.startsWith("mean"));
    rows[number].setAttribute("aria-label", described(data.rollouts[number]));
  }
  list.replaceChildren(...state.order.map((number) => rows[number]));
  if (!state.order.length) list.append(make("div", "v-none", "No rollout is like that.", { role: "option", "aria-disabled": "true", "aria-selected": "false" }));
  const all = data.rollouts.length;
  const what = asked.sort.startsWith("mean") ? "mean colour" : "advantage";
  const beside = state.order.some((number) => value[number] !== null) ? `; beside each: ${what}` : "";
  find(".v-count").textContent = `${state.order.length} of ${all} rollouts${beside}`;
  go(Math.max(0, state.order.indexOf(kept)));
}

function described(rollout) {
  const answered = rollout.extracted === null ? "no answer" : `answered ${rollout.extracted}`;
  const gold = rollout.gold ? `gold ${rollout.gold}` : "";
  const advantage = rollout.advantage === null ? "" : `advantage ${figures(rollout.advantage, true)}`;
  const where = `step ${rollout.step}, sibling ${rollout.sibling + 1} of ${rollout.group.length}`;
  const parts = [rollout.status || "not judged", answered, gold, rollout.error || "", advantage, rollout.world, where];
  return parts.filter(Boolean).join(", ");
}

// ------------------------------------------------------------------------------------------ the rollout

function go(place) {
  const before = state.order.length && rows[state.shownNumber];
  if (before) before.setAttribute("aria-selected", "false");
  state.current = state.order.length ? Math.min(state.order.length - 1, Math.max(0, place)) : -1;
  const number = state.order[state.current];
  state.shownNumber = number;
  find(".v-place").textContent = state.order.length ? `${state.current + 1} of ${state.order.length}` : "none";
  find(".v-before").disabled = state.current <= 0;
  find(".v-after").disabled = state.current >= state.order.length - 1;
  if (number === undefined) {
    list.removeAttribute("aria-activedescendant");
    shown.replaceChildren();
    panel.replaceChildren();
    return;
  }
  const row = rows[number];
  row.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", row.id);
  const [top, bottom] = [row.offsetTop - list.offsetTop, row.offsetTop - list.offsetTop + row.offsetHeight];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  draw();
}

function draw() {
  const number = state.order[state.current];
  if (number === undefined) return;
  const rollout = data.rollouts[number];
  const numbers = state.siblings ? rollout.group : [number];
  const responses = numbers.map((one) => {
    const made = response(data.rollouts[one], state.by, state.siblings);
    made.dataset.number = one;
    if (state.siblings && one === number) made.classList.add("v-current");
    return made;
  });
  const place = make("div", state.siblings ? "v-group" : "");
  place.append(...responses);
  shown.replaceChildren(scene(rollout, state.siblings), place);
  find(".v-siblings").textContent = `All ${rollout.group.length} siblings`;
  find(".v-siblings").disabled = rollout.group.length < 2;
  point(null);
}

function point(token) {
  const number = token ? Number(token.closest(".v-said").dataset.number) : state.order[state.current];
  if (number === undefined) return;
  const rollout = data.rollouts[number];
  const parts = token ? aboutToken(rollout, Number(token.dataset.place), state.by) : aboutResponse(rollout, state.by);
  panel.classList.toggle("v-of-token", Boolean(token));
  panel.replaceChildren(...parts);
}

const tokenOf = (event) => event.target.closest?.(".v-tokens > span");
const focused = () => (document.activeElement?.matches(".v-tokens > span") ? document.activeElement : null);

shown.addEventListener("mouseover", (event) => tokenOf(event) && point(tokenOf(event)));
shown.addEventListener("mouseout", (event) => tokenOf(event) && point(focused()));
shown.addEventListener("focusout", (event) => {
  if (!tokenOf(event)) return;
  tokenOf(event).setAttribute("aria-selected", "false");
  point(null);
});
shown.addEventListener("focusin", (event) => {
  const token = tokenOf(event);
  if (!token) return;
  for (const other of token.parentNode.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  token.tabIndex = 0;
  token.setAttribute("aria-selected", "true");
  point(token);
});
shown.addEventListener("keydown", (event) => {
  const token = tokenOf(event);
  const to = token && {
    ArrowRight: token.nextElementSibling,
    ArrowLeft: token.previousElementSibling,
    Home: token.parentNode.firstElementChild,
    End: token.parentNode.lastElementChild,
  }[event.key];
  if (!to) return;
  event.preventDefault();
  to.focus({ preventScroll: false });
});

// ------------------------------------------------------------------------------------------ keys and controls

list.addEventListener("click", (event) => {
  const row = event.target.closest(".v-row");
  if (row) go(state.order.indexOf(Number(row.dataset.number)));
});
list.addEventListener("keydown", (event) => {
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  if (!(event.key in moves)) return;
  event.preventDefault();
  go(state.current + moves[event.key]);
});

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return document.documentElement.dataset.theme || (dark ? "dark" : "light");
}

function turn(to) {
  document.documentElement.dataset.theme = to;
  find(".v-theme").setAttribute("aria-pressed", String(to === "dark"));
}

const KEYS = {
  j: () => state.current < state.order.length - 1 && go(state.current + 1),
  k: () => state.current > 0 && go(state.current - 1),
  t: () => (shown.querySelector(".v-current .v-tokens > span") || shown.querySelector(".v-tokens > span"))?.focus(),
  s: () => find(".v-siblings").click(),
  d: () => find(".v-theme").click(),
  "/": () => tools.elements.text.focus(),
  "?": () => find(".v-help").showModal(),
};
document.addEventListener("keydown", (event) => {
  const place = event.target;
  const elsewhere = place !== document.body && place !== document.documentElement && !root.contains(place);
  if (elsewhere || event.ctrlKey || event.metaKey || event.altKey || find(".v-help").open) return;
  if (!find("[name=keys]").checked || place.matches?.("input, select, textarea")) {
    if (event.key === "Escape" && place === tools.elements.text) place.blur();
    return;
  }
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

find(".v-before").addEventListener("click", KEYS.k);
find(".v-after").addEventListener("click", KEYS.j);
find(".v-help-open").addEventListener("click", KEYS["?"]);
find(".v-theme").addEventListener("click", () => turn(theme() === "dark" ? "light" : "dark"));
find(".v-siblings").addEventListener("click", (event) => {
  state.siblings = !state.siblings;
  event.currentTarget.setAttribute("aria-pressed", String(state.siblings));
  draw();
});
tools.addEventListener("submit", (event) => event.preventDefault());
tools.addEventListener("input", (event) => {
  state.by = Number(tools.elements.by.value);
  legend(state.by);
  if (event.target.name !== "by" || tools.elements.sort.value.startsWith("mean")) refresh();
  else draw();
});

// ------------------------------------------------------------------------------------------ on paper

addEventListener("beforeprint", () => {
  const some = state.order.slice(0, MOST_PRINTED);
  const printed = some.map((number, place) => {
    const rollout = data.rollouts[number];
    const again = place > 0 && data.rollouts[some[place - 1]].group === rollout.group; // its scene stands above it
    const one = make("div", again ? "v-one v-again" : "v-one");
    one.append(...(again ? [] : [scene(rollout)]), response(rollout, state.by));
    return one;
  });
  const words = `Coloured by ${data.statistics[state.by]?.label}. Printed: ${some.length} of ${state.order.length} rollouts chosen.`;
  find(".v-printed").replaceChildren(make("p", "note", words), ...printed);
  find(".v-printed").hidden = false;
});
addEventListener("afterprint", () => {
  find(".v-printed").replaceChildren();
  find(".v-printed").hidden = true;
});

// ------------------------------------------------------------------------------------------ the beginning

function offer(name, values) {
  const select = tools.elements[name];
  for (const value of values) select.append(make("option", "", String(value), { value: String(value) }));
  select.parentNode.hidden = values.length < 2;
}

for (const view of new Set(data.statistics.map((statistic) => statistic.view))) {
  const place = view ? make("optgroup", "", "", { label: view }) : tools.elements.by;
  data.statistics.forEach((statistic, number) => {
    if (statistic.view === view) place.append(make("option", "", statistic.label, { value: String(number) }));
  });
  if (view) tools.elements.by.append(place);
}
tools.elements.by.value = String(state.by);
tools.elements.by.parentNode.hidden = !data.statistics.length;
const all = (name) => [...new Set(data.rollouts.map((rollout) => rollout[name]))];
offer("world", all("world").sort());
offer("step", all("step").sort((one, other) => one - other));
const errors = all("error").filter(Boolean).sort();
offer("error", errors.length ? [...errors, "none"] : []);
tools.elements.verdict.parentNode.hidden = data.rollouts.length < 2 || !all("status").some(Boolean);
find(".v-siblings").hidden = [...groups.values()].every((group) => group.length < 2);
find(".v-find").hidden = data.rollouts.length < 2;
tools.elements.sort.parentNode.hidden = data.rollouts.length < 2;
if (!data.rollouts.some((rollout) => rollout.advantage !== null)) {
  for (const option of [...tools.elements.sort.options]) if (option.value.startsWith("advantage")) option.remove();
}
root.classList.toggle("v-single", data.rollouts.length === 1);
find(".v-mark-looks").hidden = !data.rollouts.some((rollout) => rollout.looks);
find(".v-mark-false").hidden = !data.rollouts.some((rollout) => rollout.false.includes("1"));
find(".v-mark-selected").hidden = !data.rollouts.some((rollout) => Object.keys(rollout.selected).length);
find(".v-theme").setAttribute("aria-pressed", String(theme() === "dark"));
app.hidden = false;
legend(state.by);
refresh();
root.dataset.ready = String(Math.round(performance.now()));
