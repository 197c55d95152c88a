\set back random(0, 40000)
DELETE FROM orders WHERE id = (SELECT max(id) FROM orders) - :back;
