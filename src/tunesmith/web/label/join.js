// Exchanges the token behind the # for a cookie; it leaves the address bar before anything else happens.
"use strict";
const token = location.hash.slice(1);
if (token) {
  history.replaceState(null, "", "/join");
  const status = document.getElementById("status");
  status.textContent = "Opening your link…";
  fetch("/api/join", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token }),
  }).then(answer => {
    if (answer.ok) location.replace("/");
    else status.textContent = "This link opens nothing. Ask for a new one.";
  }, () => { status.textContent = "The server can't be reached. Reload to try again."; });
}
