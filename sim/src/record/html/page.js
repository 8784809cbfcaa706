"use strict";
for (const values of document.querySelectorAll("details.values")) {
  const figure = values.closest("figure"), plot = figure.querySelector(".plot"), svg = plot.querySelector("svg");
  const [left, top, right, bottom] = values.dataset.frame.split(" ").map(Number), along = values.dataset.along;
  const head = [...values.querySelectorAll("thead th")].map((cell) => cell.textContent);
  const rows = [...values.querySelectorAll("tbody tr")];
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  const cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cross.setAttribute("class", "cross");
  svg.append(cross);
  const hide = () => { tip.hidden = true; cross.setAttribute("d", ""); };
  const say = (event, lines) => {
    tip.replaceChildren(...lines.map(([name, value]) => {
      const line = document.createElement("div"), bold = document.createElement("b");
      bold.textContent = value;
      line.append(name + " ", bold);
      return line;
    }));
    tip.hidden = false;
    const box = figure.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    tip.style.left = Math.max(4, x + 16 + tip.offsetWidth > box.width ? x - 16 - tip.offsetWidth : x + 16) + "px";
    tip.style.top = Math.max(4, y - tip.offsetHeight - 8) + "px";
  };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal, scale = view.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    if (x < left || x > right || y < top || y > bottom) return hide();
    if (along === "both") {
      const [width, height] = values.dataset.cell.split(" ").map(Number);
      const row = rows[Math.floor((y - top) / height)], column = Math.floor((x - left) / width);
      const cell = row && row.cells[column + 1];
      return cell ? say(event, [[row.cells[0].textContent, cell.textContent], ["from", head[column + 1]]]) : hide();
    }
    const at = along === "y" ? y : x, place = (row) => Number(row.dataset.p);
    const row = rows.reduce((best, row) => Math.abs(place(row) - at) < Math.abs(place(best) - at) ? row : best, rows[0]);
    cross.setAttribute("d", along === "y" ? `M${left} ${place(row)}H${right}` : `M${place(row)} ${top}V${bottom}`);
    say(event, [...row.cells].map((cell, index) => [head[index], cell.textContent]));
  });
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((cell, index) => {
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const up = cell.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[index].dataset.v ?? row.cells[index].textContent;
      const compare = (a, b) => {
        const [one, other] = [key(a), key(b)], difference = Number(one) - Number(other);
        return Number.isNaN(difference) ? one.localeCompare(other, "en", { numeric: true }) : difference;
      };
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("place"));
        body.append(...rows.sort((a, b) => up ? compare(a, b) : compare(b, a)));
      }
    });
  });
}
