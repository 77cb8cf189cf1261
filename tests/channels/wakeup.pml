/* SPDX-License-Identifier: MIT */
/*
 * "Rings" of docs/channels.rst: a ring of four bytes, six bytes, indices that wrap
 * from 255 to 0 in the middle. A lost wake-up is a state in which both wait:
 * spin's "invalid end state".
 *
 * With -DNO_BARRIER the word that asks for a ring reaches the memory after the
 * index was looked at again, which is what a store buffer does.
 */
#define RING	4
#define FIRST	253
#define LAST	((FIRST + 6) & 255)

/* Has an index that moved from old to new passed wake? */
#define PASSED(old, new, wake) ((((new) - (wake) - 1) & 255) < (((new) - (old)) & 255))

byte head = FIRST, tail = FIRST;	/* each is written by one end */
byte reader_wake = FIRST, writer_wake = FIRST - 1;
bool bell_reader, bell_writer;		/* a ring stays until it is cleared */

inline await(index, wake, value)
{
#ifdef NO_BARRIER
	seen = index; wake = value;
#else
	wake = value; seen = index;
#endif
}

proctype writer()
{
	byte seen;

	do
	:: head == LAST -> break
	:: else ->
		seen = tail;
		if
		:: ((head - seen) & 255) < RING ->
			head++;
			/* barrier */
			if
			:: PASSED(head - 1, head, reader_wake) -> bell_reader = true
			:: else
			fi
		:: else ->
			await(tail, writer_wake, (head - RING / 2 - 1) & 255);
			if
			:: ((head - seen) & 255) == RING -> bell_writer; bell_writer = false
			:: else
			fi
		fi
	od
}

proctype reader()
{
	byte seen;

	do
	:: tail == LAST -> break
	:: else ->
		seen = head;
		assert(((seen - tail) & 255) <= RING);
		if
		:: seen != tail ->
			tail++;
			/* barrier */
			if
			:: PASSED(tail - 1, tail, writer_wake) -> bell_writer = true
			:: else
			fi
		:: else ->
			await(head, reader_wake, tail);
			if
			:: seen == tail -> bell_reader; bell_reader = false
			:: else
			fi
		fi
	od
}

init { atomic { run writer(); run reader() } }
