"""Film -> where its objects are, before anything was learnt: boxes and a picture of them."""

from lmk.runtime.find.film import COLUMNS, Boxed, find_in_film, write_boxes, write_picture
