"""Parts of the HTML page of a run: curves, figures, pictures, answers and reconstructions."""
