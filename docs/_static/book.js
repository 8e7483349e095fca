// Whatever scrolls can be reached and scrolled with the keyboard.
addEventListener("load", () => {
  for (const element of document.querySelectorAll("pre, .math-block, .cell_output, .text_html")) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
  }
});
