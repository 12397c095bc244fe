"""Benchmark results for people.

    summary         on a terminal
    html            one page, without network or script (``page.css``)
    sections, identification    its parts
    contact_sheet   pictures of pairs that may be mislabelled
    markup, plots   pieces of HTML, and SVG (the only file of ``training`` that imports ``matplotlib``)

May import evaluation and data.
"""
