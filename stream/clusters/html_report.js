"use strict";
// Puts what is ticked and typed into the command that does it. Without a script the page is whole, but for this.
const bar = document.querySelector("aside");
const command = bar.querySelector("code");
const numbers = [...document.querySelectorAll("input[type=number]")];
const names = [...document.querySelectorAll("input[type=text]")];
const button = bar.querySelector("button");

function quoted(text) {
  return /^[\w.,=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

// Tracks, not numbers, name the people: numbers change when more is seen.
function merge(input) {
  const other = numbers.find((each) => each.dataset.number === String(input.valueAsNumber));
  if (other === undefined || other === input) return [];
  return [`--merge=${quoted(`${other.dataset.track},${input.dataset.track}`)}`];
}

function enrol(input) {
  const name = input.value.trim();
  return name === "" ? [] : [`--enrol=${quoted(`${input.dataset.track}=${name}`)}`];
}

function show() {
  const ticked = [...document.querySelectorAll("input[type=checkbox]:checked")];
  const named = names.flatMap(enrol);
  const asked = [
    ...numbers.flatMap(merge), ...ticked.map((each) => `--split=${quoted(each.dataset.track)}`), ...named,
  ];
  if (named.length > 0) asked.push(command.dataset.gallery);
  bar.hidden = asked.length === 0;
  bar.querySelector(".advice").hidden = named.length === 0 || command.dataset.gallery === "";
  command.textContent = [command.dataset.begin, ...asked, command.dataset.end].filter((each) => each !== "").join(" ");
  button.textContent = "copy";
}

button.addEventListener("click", () => {
  getSelection().selectAllChildren(command);
  button.textContent = document.execCommand("copy") ? "copied" : "select it, and copy it by hand";
});

for (const each of document.querySelectorAll("label[hidden], p[hidden]")) each.hidden = false;
document.addEventListener("input", show);
show();
