"""Links: effects of concepts of one layer on concepts of the next, by intervention."""
