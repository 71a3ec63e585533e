"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const COLOURS = {
    light: ["#0060a8", "#b34700", "#00734d", "#8f3d87", "#7a5c00", "#5a5a5a", "#b3002d", "#006d7a"],
    dark: ["#58a6ff", "#ff9e4a", "#4ade9b", "#e39bdc", "#e3c04b", "#b8c0c8", "#ff7b8e", "#56d4dd"],
  };

  // -- curves --------------------------------------------------------------------------------------------------------

  function traces(data) {
    const colours = COLOURS[dark.matches ? "dark" : "light"];
    return data.traces.map((trace) => ({
      type: "scatter", name: trace.name, x: trace.x, y: trace.y,
      mode: trace.markers ? "lines+markers" : "lines",
      line: {color: colours[trace.colour % colours.length], dash: trace.dash, shape: trace.shape, width: 1.8},
      marker: {size: 4}, hovertemplate: "%{y:.5~g}", hoverlabel: {namelength: 60},
    }));
  }

  function layout(data) {
    const style = getComputedStyle(root);
    const text = style.getPropertyValue("--text").trim(), rule = style.getPropertyValue("--rule").trim();
    const axis = {gridcolor: rule, zerolinecolor: rule, linecolor: rule, automargin: true};
    return {
      autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "kept",
      font: {color: text, family: "system-ui, sans-serif", size: 13}, margin: {l: 50, r: 12, t: 26, b: data.traces.length > 1 ? 85 : 45},
      hovermode: "x unified", hoverlabel: {bgcolor: style.getPropertyValue("--card").trim(), font: {color: text}},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: style.getPropertyValue("--quiet").trim(), activecolor: text},
      xaxis: {...axis, title: {text: data.x}, hoverformat: ",.6~g"},
      yaxis: {...axis, title: {text: data.y}, ...(data.log ? {type: "log"} : {}),
        ...(data.range ? {range: data.range} : {})},
      showlegend: data.traces.length > 1, legend: {orientation: "h", yref: "container", y: 0, yanchor: "bottom"},
    };
  }

  function draw(chart) {
    if (typeof Plotly === "undefined") return;
    const data = JSON.parse(chart.nextElementSibling.textContent);
    chart.data_ = data;
    Plotly.react(chart, traces(data), layout(data), {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
    });
    if (!chart.listens) {
      chart.listens = true;
      chart.addEventListener("keydown", (event) => key(chart, event));
    }
  }

  function key(chart, event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const factor = {"+": 0.5, "=": 0.5, "-": 2}[event.key];
    const axis = chart._fullLayout.xaxis;
    if (factor) {
      const [low, high] = axis.range, middle = chart.at_ ?? (low + high) / 2, half = (high - low) * factor / 2;
      Plotly.relayout(chart, {"xaxis.range": [middle - half, middle + half]});
    } else if (event.key === "0") {
      const range = chart.data_.range;
      Plotly.relayout(chart, {"xaxis.autorange": true, ...(range ? {"yaxis.range": range} : {"yaxis.autorange": true})});
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      walk(chart, event.key === "ArrowRight" ? 1 : -1);
    } else {
      return;
    }
    event.preventDefault();
  }

  function walk(chart, step) {
    const places = [...new Set(chart.data_.traces.flatMap((trace) => trace.x))].filter((x) => x !== null);
    if (!places.length) return;
    places.sort((a, b) => a - b);
    const now = places.indexOf(chart.at_);
    const next = now < 0 ? (step > 0 ? 0 : places.length - 1) : Math.min(places.length - 1, Math.max(0, now + step));
    chart.at_ = places[next];
    Plotly.Fx.hover(chart, {xval: chart.at_, yval: 0});
    const said = chart.data_.traces.flatMap((trace) => {
      const place = trace.x.indexOf(chart.at_);
      return place < 0 || trace.y[place] === null ? [] : [`${trace.name} ${trace.y[place]}`];
    });
    document.getElementById("spoken").textContent = `${chart.data_.x} ${chart.at_}: ${said.join(", ")}`;
  }

  const drawAll = () => document.querySelectorAll(".chart").forEach(draw);

  // -- tables --------------------------------------------------------------------------------------------------------

  function sortable(table) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head, column));
    });
  }

  function sort(table, head, column) {
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const numbers = [...table.tBodies[0].rows].some((row) => row.cells[column].matches(".number, :has(.bar)"));
    const falling = head.ariaSort ? head.ariaSort === "ascending" : numbers;
    const order = (a, b) => {
      const [x, y] = [parseFloat(a), parseFloat(b)];
      if (numbers) return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : (x - y) * (falling ? -1 : 1);
      return a.localeCompare(b, undefined, {numeric: true}) * (falling ? -1 : 1);
    };
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => order(value(a), value(b))));
  }

  /** Make a part's tables sortable, and let a wide net begin at its middle, where its data are. */
  function prepare(part) {
    part.querySelectorAll("table.sortable").forEach(sortable);
    part.querySelectorAll(".net").forEach((net) => { net.scrollLeft = (net.scrollWidth - net.clientWidth) / 2; });
  }

  // -- following a run -----------------------------------------------------------------------------------------------

  /** Take over what has changed: the curves' points, so that zoom stays, or a section. */
  function takeOver(page) {
    for (const part of ["footer", "nav"]) document.querySelector(part).replaceWith(page.querySelector(part));
    let before = null;
    for (const fresh of [...page.querySelectorAll("main > section")]) {
      const old = document.getElementById(fresh.id);
      const last = before;
      before = old ?? fresh;
      if (!old) {
        if (last) last.after(fresh); else document.querySelector("main").prepend(fresh);
        prepare(fresh);
        fresh.querySelectorAll(".chart").forEach(draw);
      }
      if (!old || old.dataset.content === fresh.dataset.content) continue;
      const curves = (part) => [...part.querySelectorAll(".chart")].map((chart) => chart.id).join();
      old.dataset.content = fresh.dataset.content;
      if (curves(fresh) && curves(fresh) === curves(old) && !fresh.querySelector("table, .gallery")) {
        fresh.querySelectorAll(".chart").forEach((chart) => {
          const here = document.getElementById(chart.id);
          here.nextElementSibling.textContent = chart.nextElementSibling.textContent;
          here.setAttribute("aria-label", chart.getAttribute("aria-label"));
          draw(here);
        });
      } else {
        const open = [...old.querySelectorAll("details")].map((one) => one.open);
        old.innerHTML = fresh.innerHTML;
        old.querySelectorAll("details").forEach((one, i) => { one.open = open[i] ?? false; });
        prepare(old);
        old.querySelectorAll(".chart").forEach(draw);
      }
    }
  }

  async function follow(every) {
    let seen = document.body.dataset.version;
    for (;;) {
      await new Promise((done) => setTimeout(done, every));
      try {
        const version = await (await fetch("version", {cache: "no-store"})).text();
        if (version === seen) continue;
        const text = await (await fetch("./", {cache: "no-store"})).text();
        takeOver(new DOMParser().parseFromString(text, "text/html"));
        seen = version;
      } catch {
        document.getElementById("spoken").textContent = "The report's server does not answer.";
      }
    }
  }

  prepare(document);
  drawAll();
  dark.addEventListener("change", drawAll);
  const every = document.body.dataset.follow;
  if (every) follow(Number(every));
})();
