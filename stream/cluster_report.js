"use strict";
// Puts what is ticked and typed into the command that does it. Without a script the page is whole, but for this.
const bar = document.querySelector("aside");
const command = bar.querySelector("code");
const numbers = [...document.querySelectorAll("input[type=number]")];

function quoted(text) {
  return /^[\w.,=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

// Tracks, not numbers, name the people: numbers change when more is seen.
function merge(input) {
  const other = numbers.find((each) => each.dataset.number === String(input.valueAsNumber));
  if (other === undefined || other === input) return [];
  return [`--merge=${quoted(`${other.dataset.track},${input.dataset.track}`)}`];
}

function show() {
  const ticked = [...document.querySelectorAll("input[type=checkbox]:checked")];
  const asked = [...numbers.flatMap(merge), ...ticked.map((each) => `--split=${quoted(each.dataset.track)}`)];
  bar.hidden = asked.length === 0;
  command.textContent = [command.dataset.begin, ...asked, command.dataset.end].join(" ");
}

for (const each of document.querySelectorAll("label[hidden], p[hidden]")) each.hidden = false;
document.addEventListener("input", show);
show();
