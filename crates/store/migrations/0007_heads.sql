-- What the rows of events tell is told nowhere else, so that one more event writes fewer pages:
--
-- positions holds a position only where no event carries it, so the last position given out is the
-- larger of the two, and the first the smaller.
--
-- A room without rows in forward_extremities has one extremity: the newest event of its timeline.
-- A row for the event 0, which there is not, says that it has none.
INSERT INTO forward_extremities (room, event)
SELECT DISTINCT room, 0 FROM events
WHERE pos > 0 AND NOT EXISTS (SELECT 1 FROM forward_extremities AS x WHERE x.room = events.room);
DELETE FROM forward_extremities WHERE room IN (
    SELECT room FROM forward_extremities AS x GROUP BY room
    HAVING count(*) = 1 AND max(event) = (
        SELECT nid FROM events WHERE room = x.room AND pos > 0 ORDER BY pos DESC LIMIT 1));
