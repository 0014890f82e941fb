// A line and the values under the pointer. The page is complete without it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const nearest = (points, at) => points.reduce((best, point) =>
    Math.abs(point.at_s - at) < Math.abs(best.at_s - at) ? point : best, points[0]);
  const shown = (value, unit) => value === null ? "no answer" : Number(value.toPrecision(4)) + " " + unit;
  const texts = {
    throughput: at => {
      const point = nearest(data.timeline.service, at);
      const tunnel = nearest(data.timeline.tunnel, at);
      return point && [point.at_s, "service " + shown(point.gbps, "Gb/s"), "tunnel " + shown(tunnel ? tunnel.gbps : 0, "Gb/s")];
    },
    latency: at => {
      const point = nearest(data.timeline.pings, at);
      return point && [point.at_s, "ping " + shown(point.round_trip_ms, "ms")];
    },
    datagrams: at => {
      const point = nearest(data.timeline.datagrams, at / 1000);
      return point && [point.at_s, "echo " + shown(point.round_trip_ms, "ms")];
    },
  };
  for (const chart of document.querySelectorAll("svg[data-chart]")) {
    const { chart: name, from, to, left, right } = chart.dataset;
    const cursor = chart.querySelector(".cursor");
    const hide = () => { tip.hidden = true; cursor.style.display = "none"; };
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("pointermove", event => {
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      const part = (x - left) / (right - left);
      const said = part >= 0 && part <= 1 && texts[name](+from + part * (to - from));
      if (!said) return hide();
      const [at, ...lines] = said;
      const close = name === "datagrams";
      cursor.style.display = "inline";
      cursor.setAttribute("transform", `translate(${x} 0)`);
      tip.textContent = [close ? (at * 1000).toFixed(1) + " ms" : at.toFixed(1) + " s", ...lines].join("\n");
      tip.hidden = false;
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = Math.max(8, Math.min(event.clientX + 14, room)) + "px";
      tip.style.top = event.clientY + 16 + "px";
    });
  }
})();
