"""A folder of real files for end-to-end tests of knowledge bases."""

from __future__ import annotations

from pathlib import Path

import docx
import fpdf


def write_harbour(parent: Path) -> Path:
    """One file of each kind, one that is broken, and what nobody wants to add."""
    folder = parent / "harbour"
    (folder / "rules").mkdir(parents=True)
    (folder / "boats.md").write_text("# Boats\n\nThe boat is called Marigold.\n\n# Engine\n\nIt is from 1984.\n")
    (folder / "prices.csv").write_text("item,price\nticket,12\nbicycle,3\n")
    pdf = fpdf.FPDF()
    for text in ("The ferry to Lund leaves at a quarter past eight.", "In winter there is no ferry."):
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        pdf.multi_cell(0, 8, text)
    pdf.output(str(folder / "ferries.pdf"))
    document = docx.Document()
    document.add_heading("Harbour rules", 1)
    document.add_paragraph("The harbour master is Berta Quist. Boats are moored by eight in the evening.")
    document.save(str(folder / "rules" / "harbour.docx"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing else")
    (folder / ".notes").write_text("hidden")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\0\0")
    return folder
