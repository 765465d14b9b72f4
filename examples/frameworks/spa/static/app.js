// The API is on this origin, or on the subdomain api beside www.
const elsewhere = location.hostname.startsWith("www.");
const api = elsewhere ? location.origin.replace("//www.", "//api.") : "";

async function call(method, path, body) {
  const res = await fetch(api + path, {
    method,
    credentials: elsewhere ? "include" : "same-origin",
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  if (!res.ok) throw new Error(res.status + " " + (await res.text()));
  return res.status === 204 ? null : res.json();
}

const $ = (id) => document.getElementById(id);
const list = (items) => Object.keys(items).sort().map((sku) => `${items[sku]} ${sku}`).join(", ") || "nothing";

async function show() {
  $("cart").value = list(await call("GET", "/api/cart"));
}

async function start() {
  if (elsewhere) await show(); // a GET goes first: only that may begin a guest from another origin
  // Then all at once. On one origin each of these may begin a guest; the next call makes them one.
  await Promise.all(["aloe", "cactus", "fern", "monstera"].map((sku) => call("POST", "/api/seen/" + sku)));
  $("seen").value = list(await call("GET", "/api/seen"));
  await show();
}

async function signIn(user, password) {
  await call("POST", "/api/login", { user, password });
  // Signed in: from another origin it is the next GET that claims.
  const receipt = elsewhere ? null : await call("POST", "/api/claim");
  await show();
  $("said").textContent = receipt?.claimed ? "What you chose came along." : "Hello.";
}

const said = (error) => ($("said").textContent = error.message);
$("add").onclick = () => call("POST", "/api/cart/tea").then(show).catch(said);
$("login").onsubmit = (event) => {
  event.preventDefault();
  signIn($("user").value, $("password").value).catch(said);
  event.target.reset();
};
start().catch(said);
