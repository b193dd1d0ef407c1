"""Tables: their columns, how they are read and written, sorted and joined on local disk."""
