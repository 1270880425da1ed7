"""What a page asks about a pass, and the answers: plain data, each made once.

A page is a function of its answers: live, it asks for them; exported, they lie in it.
"""
