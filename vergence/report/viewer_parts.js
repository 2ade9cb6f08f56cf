"use strict";
// What the viewer draws: rollout -> elements. Text that a model wrote only ever becomes a text node or an attribute.

const data = JSON.parse(document.getElementById("viewer-data").textContent);
const root = document.getElementById("viewer");
const find = (selector) => root.querySelector(selector);
const STEPS = 16;
const MOST_NAMED = 5;

function make(tag, className = "", text = "", attributes = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** A number in words: three figures, a true minus, and "none" where there is none. */
function figures(value, sign = false) {
  if (value === null || value === undefined) return "none";
  const size = Number(Math.abs(value).toPrecision(3));
  const text = size !== 0 && size < 0.001 ? size.toExponential().replace("-", "−") : String(size);
  return (value < 0 ? "−" : sign && value > 0 ? "+" : "") + text;
}

/** The same for a narrow column: three decimals. */
function narrow(value, sign = false) {
  const tiny = value === null || (value !== 0 && Math.abs(value) < 0.0005);
  return tiny ? figures(value === null ? null : Number(value.toPrecision(1)), sign) : figures(Number(value.toFixed(3)), sign);
}

function withUnit(statistic, value) {
  const text = figures(value, statistic.signed);
  return value !== null && statistic.unit ? `${text} ${statistic.unit}` : text;
}

/** The class with a value's colour; none where there is no value or all are the same. */
function colour(statistic, value) {
  if (value === null || value === undefined || statistic.high <= statistic.low) return "";
  const place = (value - statistic.low) / (statistic.high - statistic.low);
  return (statistic.signed ? "d" : "s") + Math.round(STEPS * Math.min(1, Math.max(0, place)));
}

/** The mean of a statistic over the tokens of a rollout; null where it was not measured. */
function mean(rollout, by) {
  const there = (rollout.values[by] || []).filter((value) => value !== null);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}

function named(token) {
  if (token === "") return "part of a character";
  if (token.trim() !== "") return token.trim().replaceAll("\n", " line break ");
  return token.includes("\n") ? "line break" : "blank";
}

/** What is known of a token besides its numbers, in words. */
function remarks(rollout, place) {
  const found = [];
  if (rollout.looks && rollout.looks[place] === "1") found.push("states something seen");
  if (rollout.false[place] === "1") found.push("which is not so");
  for (const [term, flags] of Object.entries(rollout.selected)) {
    if (flags[place] === "1") found.push(`selected by ${term}`);
  }
  return found;
}

const isSelected = (rollout, place) => Object.values(rollout.selected).some((flags) => flags[place] === "1");

function tokenElement(rollout, place, by) {
  const token = rollout.tokens[place];
  const statistic = data.statistics[by];
  const column = rollout.values[by];
  const value = column ? column[place] : null;
  const classes = ["v-ink"];
  if (statistic) classes.push(colour(statistic, value));
  if (rollout.looks && rollout.looks[place] === "1") classes.push("looks");
  if (rollout.false[place] === "1") classes.push("false");
  if (isSelected(rollout, place)) classes.push("selected");
  const made = make("span", "", "", { role: "option", "aria-selected": "false" });
  made.tabIndex = -1;
  made.dataset.place = place;
  // the blank before a word stays blank, so that a colour begins with the word and not at the end of a line
  const word = token.trimStart() && token[0] === " " ? token.trimStart() : token;
  const ink = make("span", classes.filter(Boolean).join(" "));
  word.split("\n").forEach((part, line) => {
    if (line) ink.append(make("i"), "\n");
    ink.append(part);
  });
  made.append(token.slice(0, token.length - word.length), ink);
  const measured = statistic ? [`${statistic.label} ${withUnit(statistic, value)}`] : [];
  made.setAttribute("aria-label", [named(token), ...measured, ...remarks(rollout, place)].join(", "));
  return made;
}

/** One response: what is said of it, its tokens, and its slips. */
function response(rollout, by, short = false) {
  const status = rollout.status || "not judged";
  const said = make("article", `v-said ${kindOf(rollout)}`);
  const facts = [
    ["", `${sign(rollout)} ${status}`, `v-sign ${kindOf(rollout)}`],
    ...(rollout.error ? [["error", rollout.error]] : []),
    ["answered", rollout.extracted === null ? "nothing" : rollout.extracted],
    ...(short ? [] : [["gold", rollout.gold || "unknown"]]),
    ...(short || rollout.reward === null ? [] : [["reward", figures(rollout.reward)]]),
    ...(rollout.advantage === null ? [] : [["advantage", figures(rollout.advantage, true)]]),
    ...(rollout.group.length < 2 ? [] : [["sibling", `${rollout.sibling + 1} of ${rollout.group.length}`]]),
    ...(short ? [] : [["tokens", String(rollout.tokens.length)]]),
    ...(rollout.finish === "length" ? [["", "cut off"]] : []),
  ];
  const list = make("dl", "facts");
  for (const [term, text, className] of facts) {
    const pair = make("div");
    pair.append(make("dt", term ? "" : "v-unsaid", term || "verdict"), make("dd", className || "", text));
    list.append(pair);
  }
  const tokens = make("div", "v-tokens", "", {
    role: "listbox",
    "aria-orientation": "horizontal",
    "aria-label": `Response of sibling ${rollout.sibling + 1}, token by token`,
    dir: "auto",
  });
  tokens.append(...rollout.tokens.map((_, place) => tokenElement(rollout, place, by)));
  if (tokens.firstChild) tokens.firstChild.tabIndex = 0;
  said.append(list, tokens);
  if (rollout.more) said.append(make("p", "v-more", rollout.more));
  if (rollout.slips.length) said.append(slips(rollout));
  return said;
}

function slips(rollout) {
  const list = make("ul", "v-slips");
  for (const [about, stated, truth] of rollout.slips) {
    const line = make("li", "", `${about}: says `);
    line.append(make("b", "", stated), truth === null ? ", which is not there" : ", is ");
    if (truth !== null) line.append(make("i", "", truth));
    list.append(line);
  }
  return list;
}

const sign = (rollout) => ({ right: "✓", wrong: "✗" })[rollout.status] || "?";
const kindOf = (rollout) => (["right", "wrong"].includes(rollout.status) ? rollout.status : "other");

/** The question, and the image beside its views. */
function scene(rollout, ofMany = false) {
  const made = make("div");
  const gold = ofMany && rollout.gold ? `gold ${rollout.gold}` : ""; // of one, it stands beside the answer
  const where = [rollout.world, rollout.scene, rollout.step ? `step ${rollout.step}` : "", gold];
  made.append(make("h3", "v-question", rollout.question || "No question", { dir: "auto" }));
  const strip = make("div", "v-views");
  rollout.seen.forEach(([name, pictures, words], place) => {
    const figure = make("figure", place ? "" : "v-first");
    for (const [number, small] of pictures) {
      const image = make("img", small ? "small" : "", "", { alt: place ? `The view ${name}` : "The image" });
      image.src = data.pictures[number];
      figure.append(image);
    }
    if (!pictures.length) figure.append(make("div", "v-words", words || "no picture", { dir: "auto" }));
    figure.append(make("figcaption", "", pictures.length && words ? `${name}: ${words}` : name));
    strip.append(figure);
  });
  if (rollout.trouble) strip.append(make("div", "v-words v-trouble", `No image: ${rollout.trouble}`));
  made.append(strip, make("p", "v-more", [...new Set(where)].filter(Boolean).join(" · ")));
  return made;
}

/** All statistics in two tables, those of a view in its row; `value(number)` is what is said of each. */
function tables(caption, by, value) {
  const signed = (what) => data.statistics.some((one) => one.what === what && one.signed); // of its column, not of one view
  const there = data.statistics.map((one, number) => ({ ...one, signed: signed(one.what), number, value: value(number) }));
  const measured = there.filter((one) => one.value !== undefined);
  const alone = measured.filter((one) => one.what === one.label || !one.unit);
  const ofViews = measured.filter((one) => !alone.includes(one));
  const rows = alone.map((one) => [one.label, [one]]);
  const made = [grid(caption, [], rows, by)];
  const kinds = [...new Set(ofViews.map((one) => one.what))];
  const views = [...new Set(ofViews.map((one) => one.view))];
  if (!views.length) return rows.length ? made : [];
  const cells = views.map((view) => [view, kinds.map((kind) => ofViews.find((one) => one.view === view && one.what === kind))]);
  const under = grid(rows.length ? "Under each view, nats" : `${caption}, under each view, nats`, kinds, cells, by);
  return rows.length ? [...made, under] : [under];
}

function grid(caption, columns, rows, by) {
  const made = make("table");
  made.append(make("caption", "", caption));
  if (columns.length) {
    const head = make("tr");
    head.append(make("td"), ...columns.map((name) => make("th", "", name, { scope: "col" })));
    made.append(make("thead"));
    made.tHead.append(head);
  }
  const body = make("tbody");
  for (const [name, cells] of rows) {
    const row = make("tr");
    row.append(make("th", "", name, { scope: "row" }));
    for (const one of cells) {
      const cell = make("td", one && one.number === by ? "v-chosen" : "", one ? narrow(one.value, one.signed) : "");
      if (one && one.unit && !columns.length) cell.append(" ", make("small", "", one.unit));
      row.append(cell);
    }
    body.append(row);
  }
  made.append(body);
  return made;
}

/** What the panel says of one token. */
function aboutToken(rollout, place, by) {
  const said = remarks(rollout, place);
  const parts = [make("h4", "", `“${named(rollout.tokens[place]).slice(0, 200)}”`, { dir: "auto" })];
  parts.push(make("p", "", [`token ${place + 1} of ${rollout.tokens.length}`, ...said].join(", ")));
  return [...parts, ...tables("At this token", by, (number) => (rollout.values[number] || {})[place])];
}

/** What the panel says of a whole response: means, and the tokens with most of the chosen statistic. */
function aboutResponse(rollout, by) {
  const parts = [make("h4", "v-title", "The whole response")];
  const statistic = data.statistics[by];
  const column = rollout.values[by];
  if (column) {
    const places = [...column.keys()].filter((place) => column[place] !== null && rollout.tokens[place].trim() !== "");
    places.sort((one, other) => column[other] - column[one]);
    parts.push(make("p", "", `Most ${statistic.label}:`));
    const list = make("ul");
    for (const place of places.slice(0, MOST_NAMED)) {
      const line = make("li");
      line.append(make("code", colour(statistic, column[place]), named(rollout.tokens[place]).slice(0, 40)));
      line.append(` ${withUnit(statistic, column[place])}`);
      list.append(line);
    }
    parts.push(list);
  } else if (statistic) {
    parts.push(make("p", "", `${statistic.label} was not measured here.`));
  }
  const hint = make("p", "v-more", "Point at a token, or press t and the arrows, for its own values.");
  return [...parts, ...tables("Mean over its tokens", by, (number) => mean(rollout, number) ?? undefined), hint];
}

/** The scale of a statistic with its ends, and what it says. */
function legend(by) {
  const statistic = data.statistics[by];
  find(".v-legend").hidden = !statistic;
  if (!statistic) return;
  const flat = statistic.high <= statistic.low;
  find(".v-low").textContent = figures(statistic.low, statistic.signed);
  find(".v-high").textContent = flat ? "everywhere" : withUnit(statistic, statistic.high);
  const letter = statistic.signed ? "d" : "s";
  const cells = flat ? [] : Array.from({ length: STEPS + 1 }, (_, step) => make("span", letter + step));
  find(".v-bar").replaceChildren(...cells);
  const scale = statistic.signed
    ? "Rust is below zero, petrol above, zero in the middle"
    : "The stronger, the more";
  const beyond = "at most 2 % of this page’s tokens lie beyond either end";
  find(".v-about").textContent = `${statistic.about} ${scale}; ${beyond}.`.trim();
}
