"use strict";
const find = document.getElementById("find");
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.hidden = false; target.open = true; target.scrollIntoView(); }
};
const narrow = () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const one of document.querySelectorAll("details")) {
    const text = (one.dataset.text ??= one.textContent.toLowerCase());
    one.hidden = !words.every((word) => text.includes(word));
  }
};
const base = new URL(".", location).href.slice(0, -1);
for (const one of document.querySelectorAll("pre.curl")) {
  one.textContent = one.textContent.replaceAll("http://127.0.0.1:8080", base);
}
find.parentElement.hidden = false;
find.addEventListener("input", narrow);
addEventListener("hashchange", open);
open();
