"""How a study is carried out: tasks, store, resume and progress."""
