// The shop works without this. With it, a form marked data-live is sent without leaving the page: the answer is the
// same page again, and the parts of it that changed are put in place.

let last = Promise.resolve(); // one form at a time, so that an older answer never replaces a newer one

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.matches("[data-live]")) {
    event.preventDefault();
    const { action } = form, body = new URLSearchParams(new FormData(form));
    last = last.then(() => send(action, body));
  } else if (form.matches("[data-once]")) {
    form.querySelector("button").disabled = true; // a double click signs in once
  }
});

// A page that the browser brings back keeps its buttons as they were left.
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("[data-once] button")) button.disabled = false;
});

async function send(action, body) {
  try {
    const answer = await fetch(action, { method: "POST", body });
    if (!answer.ok) throw new Error(answer.statusText);
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    location.reload(); // the page then says how things are
  }
}

function show(fresh) {
  const focused = document.activeElement;
  for (const part of document.querySelectorAll("[data-part]")) {
    const next = fresh.getElementById(part.id);
    if (!next || next.innerHTML === part.innerHTML) continue;
    part.innerHTML = next.innerHTML;
    part.classList.remove("changed");
    void part.offsetWidth; // starts the animation anew
    part.classList.add("changed");
  }
  const { theme } = fresh.documentElement.dataset;
  if (theme) document.documentElement.dataset.theme = theme;
  for (const id of ["light", "dark"]) {
    document.getElementById(id).ariaPressed = fresh.getElementById(id)?.ariaPressed;
  }
  if (!focused.isConnected) {
    (document.getElementById(focused.id) ?? document.querySelector("h1")).focus();
  }
}

// What a mailed link carries behind its # is for this page only, and leaves the address at once.
for (const field of document.querySelectorAll("[data-fragment]")) {
  field.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
}
