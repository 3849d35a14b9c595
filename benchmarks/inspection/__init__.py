"""`raremem inspect`: what is in a memory's file, as a page and as text.

`content` reads files, `measures` and `confusion` work out the figures, `page` shows them, and `run` does all of it in order.
Nothing here is a benchmark; it lives in this room because a page is made of what core may not import.
"""
