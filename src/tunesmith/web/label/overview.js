// Keeps the numbers fresh, and copies a link.
"use strict";
const live = document.getElementById("live");
setInterval(async () => {
  if (document.hidden) return;
  const open = [...live.querySelectorAll("details")].map(d => d.open);
  try {
    const answer = await fetch("/overview/live");
    if (!answer.ok) return;
    live.innerHTML = await answer.text();  // escaped by the server, which also wrote the page
    live.querySelectorAll("details").forEach((d, n) => { d.open = open[n] || false; });
  } catch { /* the server is away; the numbers stay as they are */ }
}, 5000);

const link = document.getElementById("link"), copy = document.getElementById("copy");
if (link) link.addEventListener("focus", () => link.select());
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(link.value);
    copy.textContent = "Copied";
  });
}
