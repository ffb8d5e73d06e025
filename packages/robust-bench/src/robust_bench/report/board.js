"use strict";
// The leaderboard's table sorts and filters. Without this script it is as it was written, sorted by its first score.
(() => {
  const SHOWN_AT_FIRST = 100; // more rows than that take a browser longer than a blink
  const byId = (id) => document.getElementById(id);
  const table = byId("board");
  const body = table.tBodies[0];
  const headings = [...table.querySelectorAll("thead th[data-sort]")]; // in the order of a row's cells
  const size = headings.findIndex((heading) => heading.id === "size"); // the column of parameters
  const compare = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;

  const models = [...body.rows].map((row) => ({ row, name: row.cells[0].querySelector("bdi").textContent }));
  let order = models;
  let limit = SHOWN_AT_FIRST;

  const isText = (column) => headings[column].dataset.sort === "text";
  const numberIn = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === undefined ? null : Number(text);
  };

  // Whatever the direction, models without a number come last, and equal ones stay in the order of the page.
  const sort = (column, ascending) => {
    const sign = ascending ? 1 : -1;
    const keyed = models.map((model) => ({ model, key: isText(column) ? model.name : numberIn(model.row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * (isText(column) ? compare(a.key, b.key) : a.key - b.key);
    });
    order = keyed.map(({ model }) => model);
    for (const heading of headings) heading.removeAttribute("aria-sort");
    headings[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
    show();
  };

  // The first click sorts the better way up; the next ones turn it over.
  const turn = (column) => {
    const now = headings[column].getAttribute("aria-sort");
    sort(column, now === null ? isText(column) || "lower" in headings[column].dataset : now === "descending");
  };

  const wanted = () => {
    const words = byId("names").value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const least = Number(byId("parameters").value) * 1e6 || 0;
    return order.filter(({ row, name }) => {
      const text = name.toLocaleLowerCase();
      return words.every((word) => text.includes(word)) && (least <= 0 || numberIn(row, size) >= least);
    });
  };

  const show = () => {
    const found = wanted();
    body.replaceChildren(...found.slice(0, limit).map(({ row }) => row));
    byId("nobody").hidden = found.length > 0;
    byId("all").hidden = found.length <= limit;
    byId("all").textContent = `Show all ${found.length} models`;
    byId("status").textContent = `${found.length} of ${models.length} models${sorted()}`;
  };

  const showAll = () => {
    limit = Infinity;
    show();
  };

  const sorted = () => {
    const heading = headings.find((each) => each.hasAttribute("aria-sort"));
    if (heading === undefined) return "";
    const parts = [...heading.querySelectorAll(".head, .unit:not(.lower)")];
    return `, sorted by ${parts.map((part) => part.textContent).join(", ")}, ${heading.getAttribute("aria-sort")}`;
  };

  const chooseColumns = () => {
    const off = [...byId("controls").querySelectorAll("input[name=group]:not(:checked)")];
    table.dataset.off = off.map((box) => box.value).join(" ");
    const hidden = (heading) => off.some((box) => heading.classList.contains(box.value));
    table.style.setProperty("--columns", headings.filter((heading) => !hidden(heading)).length);
  };

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sorter";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => turn(column));
    heading.append(button);
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("change", chooseColumns);
  byId("names").addEventListener("input", show);
  byId("parameters").addEventListener("input", show);
  byId("all").addEventListener("click", showAll);
  window.addEventListener("beforeprint", showAll);
  byId("controls").hidden = false;
  chooseColumns();
  show();
})();
