"use strict";
// Answers to "is this label right?" are kept in the page until they are saved as a table.
const cards = [...document.querySelectorAll("fieldset.answer")];
const save = document.getElementById("save");
const cell = (text) => '"' + text.replaceAll('"', '""') + '"';

function table() {
  const lines = cards
    .filter((card) => card.dataset.answer)
    .map(({ dataset: d }) => [d.path, d.label, d.suggestion, d.answer].map(cell).join(","));
  return ["path,label,suggestion,answer", ...lines, ""].join("\n");
}

function answer(card, chosen) {
  if (card.dataset.answer === chosen.value) delete card.dataset.answer;  // a second click takes it back
  else card.dataset.answer = chosen.value;
  for (const button of card.querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.value === card.dataset.answer));
  const n = cards.filter((other) => other.dataset.answer).length;
  save.disabled = n === 0;
  save.textContent = `Save ${n} of ${cards.length} answers (CSV)`;
}

for (const card of cards)
  for (const button of card.querySelectorAll("button"))
    button.addEventListener("click", () => answer(card, button));

save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "answers.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

for (const hidden of document.querySelectorAll(".scripted")) hidden.hidden = false;
