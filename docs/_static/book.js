// Whatever scrolls can be reached and scrolled with the keyboard.
addEventListener("load", () => {
  for (const element of document.querySelectorAll("pre, .math-block, .cell_output, .text_html")) {
    const wider = element.scrollWidth > element.clientWidth;
    if (wider || element.scrollHeight > element.clientHeight) element.tabIndex = 0;
  }
});
