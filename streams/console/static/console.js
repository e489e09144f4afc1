// What HTML cannot do: rest while nobody looks, and say when refreshing fails.
(function () {
  "use strict";
  const stopped = document.getElementById("stopped");
  const openAttributes = (section) => Array.from(section.querySelectorAll("details"), (one) => one.open);

  document.body.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.body.addEventListener("htmx:afterRequest", (event) => {
    stopped.hidden = event.detail.successful;
  });
  // A journey that is still moving is drawn anew; what was unfolded stays unfolded.
  let unfolded = [];
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === "opened") unfolded = openAttributes(event.detail.target);
  });
  document.body.addEventListener("htmx:afterSwap", () => {
    document.querySelectorAll("#opened details").forEach((one, index) => {
      if (unfolded[index]) one.open = true;
    });
    unfolded = [];
  });
})();
