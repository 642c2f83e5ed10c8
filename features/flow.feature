Feature: Limits, order, fair shares and protection
  A limit holds jobs across queues and workers; a held job takes no slot and no attempt. Groups share a queue by their weights. A breaker
  stops asking what does not answer. A full queue refuses or lets go of its oldest.

  Background:
    Given a running server

  Scenario: A limit holds across workers and queues
    Given the limit "api" is {"concurrency":2}
    And the job "a" in "mail" with the options {"limits":["api"]}
    And the job "b" in "mail" with the options {"limits":["api"]}
    And the job "c" in "sms" with the options {"limits":["api"]}
    And the job "free" in "sms" with the options {}
    When the worker "one" fetches 9 jobs from "mail"
    Then it gets the jobs "a, b" in this order
    When the worker "two" fetches 9 jobs from "sms"
    Then it gets the jobs "free" in this order
    And the job "c" in "sms" is blocked
    And the explanation of "c" in "sms" says "limit api has 2 of 2 slots taken"
    When the first worker reports that it is done
    And the worker "two" fetches 9 jobs from "sms"
    Then it gets the job "c" as attempt 1

  Scenario: A lost lease gives its slot back
    Given the limit "api" is {"concurrency":1}
    And the job "a" in "mail" with the options {"limits":["api"]}
    And the job "b" in "mail" with the options {"limits":["api"],"priority":"low"}
    When a worker fetches from "mail" with a lease of 100 ms
    Then a worker that waits on "mail" gets the job "a" as attempt 2
    And the job "b" in "mail" is blocked
    When the worker reports that it is done
    And a worker fetches from "mail"
    Then it gets the job "b" as attempt 1

  Scenario: A rate lets a burst pass and then one at a time
    Given the limit "api" is {"rate":{"units":2,"per_ms":4000}}
    And the job "a" in "mail" with the options {"limits":["api"]}
    And the job "b" in "mail" with the options {"limits":["api"]}
    And the job "c" in "mail" with the options {"limits":["api"]}
    When a worker fetches 9 jobs from "mail"
    Then it gets the jobs "a, b" in this order
    And the explanation of "c" in "mail" says "the rate of limit api is spent"
    And a worker that waits on "mail" gets the job "c" as attempt 1

  Scenario: A costly job takes more slots than a cheap one
    Given the limit "gpu" is {"concurrency":5}
    And the job "train" in "models" with the options {"limits":[{"key":"gpu","cost":4}]}
    And the job "tune" in "models" with the options {"limits":[{"key":"gpu","cost":2}]}
    And the job "ask" in "models" with the options {"limits":["gpu"]}
    When a worker fetches 9 jobs from "models"
    Then it gets the jobs "train, ask" in this order
    And the job "tune" in "models" is blocked

  Scenario: A changed limit counts at once
    Given the limit "api" is {"concurrency":1}
    And the job "a" in "mail" with the options {"limits":["api"]}
    And the job "b" in "mail" with the options {"limits":["api"]}
    And the job "c" in "mail" with the options {"limits":["api"]}
    When a worker fetches 9 jobs from "mail"
    Then it gets the jobs "a" in this order
    When the limit "api" is {"concurrency":2}
    And a worker fetches 9 jobs from "mail"
    Then it gets the jobs "b" in this order
    When the limit "api" is removed
    And a worker fetches 9 jobs from "mail"
    Then it gets the jobs "c" in this order

  Scenario: A pattern limits each of its keys, and a key of its own comes first
    Given the limit "user:*" is {"concurrency":1}
    And the limit "user:vip" is {}
    And the job "vip-1" in "mail" with the options {"limits":["user:vip"]}
    And the job "vip-2" in "mail" with the options {"limits":["user:vip"]}
    And the job "seven-1" in "mail" with the options {"limits":["user:7"]}
    And the job "seven-2" in "mail" with the options {"limits":["user:7"]}
    And the job "eight-1" in "mail" with the options {"limits":["user:8"]}
    When a worker fetches 9 jobs from "mail"
    Then it gets the jobs "vip-1, vip-2, seven-1, eight-1" in this order
    And the explanation of "seven-2" in "mail" says "limit user:7 has 1 of 1 slots taken"

  Scenario: A handler that is told to slow down closes its limit for a while
    Given the job "a" in "mail" with the options {"limits":["api"]}
    And the job "b" in "mail" with the options {"limits":["api"]}
    When a worker fetches from "mail"
    And the worker reports that "api" lets it wait for 2000 ms
    Then the job "a" in "mail" is blocked
    And the explanation of "b" in "mail" says "limit api"
    And a worker that waits on "mail" gets the job "b" as attempt 1

  Scenario: Jobs with one ordering key start one after another
    Given the job "first" in "carts" with the options {"ordering_key":"cart-1"}
    And the job "second" in "carts" with the options {"ordering_key":"cart-1"}
    And the job "other" in "carts" with the options {"ordering_key":"cart-2"}
    When a worker fetches 9 jobs from "carts"
    Then it gets the jobs "first, other" in this order
    And the explanation of "second" in "carts" says "job first with ordering key cart-1 has to end before"
    When the worker snoozes it for 3600000 ms
    Then a worker that fetches from "carts" gets nothing
    When I promote the job "first" in "carts"
    And a worker fetches 9 jobs from "carts"
    Then it gets the jobs "first" in this order
    When the worker reports that it is done
    And a worker fetches 9 jobs from "carts"
    Then it gets the jobs "second" in this order

  Scenario: A small group does not wait for the backlog of a large one
    Given the job "b1" in "mail" with the options {"group":"big"}
    And the job "b2" in "mail" with the options {"group":"big"}
    And the job "b3" in "mail" with the options {"group":"big"}
    And the job "s1" in "mail" with the options {"group":"small"}
    When a worker fetches 9 jobs from "mail"
    Then it gets the jobs "b1, s1, b2, b3" in this order
    And they are of the groups "big, small, big, big"

  Scenario: Groups start in proportion to their weights
    Given the job "b1" in "mail" with the options {"group":"big"}
    And the group "big" of "mail" has the settings {"weight":3}
    And the job "b2" in "mail" with the options {"group":"big"}
    And the job "b3" in "mail" with the options {"group":"big"}
    And the job "b4" in "mail" with the options {"group":"big"}
    And the job "b5" in "mail" with the options {"group":"big"}
    And the job "s1" in "mail" with the options {"group":"small"}
    And the job "s2" in "mail" with the options {"group":"small"}
    When a worker fetches 9 jobs from "mail"
    Then it gets the jobs "b1, s1, b2, b3, b4, s2, b5" in this order

  Scenario: A paused group rests and the others go on
    Given the job "a" in "mail" with the options {"group":"red"}
    And the job "b" in "mail" with the options {"group":"blue"}
    When the group "red" of "mail" has the settings {"paused":true}
    And a worker fetches 9 jobs from "mail"
    Then it gets the jobs "b" in this order
    And the explanation of "a" in "mail" says "group red is paused"
    When the group "red" of "mail" has the settings {"paused":false}
    And a worker fetches 9 jobs from "mail"
    Then it gets the jobs "a" in this order

  Scenario: A breaker opens, lets one probe pass, and closes
    Given the limit "api" is {"breaker":{"failed_percent":50,"window_ms":60000,"calls":2,"open_ms":2000,"probes":1}}
    And the job "a" in "mail" with the options {"limits":["api"]}
    And the job "b" in "mail" with the options {"limits":["api"]}
    And the job "c" in "mail" with the options {"limits":["api"]}
    And the job "d" in "mail" with the options {"limits":["api"]}
    When a worker fetches from "mail"
    And the worker fails it for good with the error "no answer"
    And a worker fetches from "mail"
    And the worker fails it for good with the error "no answer"
    Then a worker that fetches from "mail" gets nothing
    And the explanation of "c" in "mail" says "the circuit breaker of limit api is open"
    And a worker that waits on "mail" gets the job "c" as attempt 1
    And the explanation of "d" in "mail" says "the circuit breaker of limit api is half open"
    When the worker reports that it is done
    And a worker fetches from "mail"
    Then it gets the job "d" as attempt 1

  Scenario: A full queue refuses what is pushed
    Given the queue "mail" has the settings {"capacity":{"jobs":1,"on_full":"reject"}}
    And the job "a" in "mail" with the options {}
    When I push the job "b" to "mail" with the options {}
    Then the call is refused with status 429 and the code "queue_full"
    And there is no job "b" in "mail"

  Scenario: A full queue lets go of its oldest
    Given the queue "mail" has the settings {"capacity":{"jobs":2,"on_full":"drop_oldest"}}
    And the job "a" in "mail" with the options {}
    And the job "b" in "mail" with the options {}
    And the job "c" in "mail" with the options {}
    Then the job "a" in "mail" is cancelled
    When a worker fetches 9 jobs from "mail"
    Then it gets the jobs "b, c" in this order

  Scenario: A producer waits for room in a full queue and its push goes through
    Given the queue "mail" has the settings {"capacity":{"jobs":1,"on_full":"block"}}
    And the job "a" in "mail" with the options {}
    When a producer pushes the job "b" to "mail" and waits up to 15000 ms
    Then before long 1 push waits for room in "mail"
    And there is no job "b" in "mail"
    When a worker fetches from "mail"
    And the worker reports that it is done
    Then the producer's push goes through
    And the job "b" in "mail" is waiting
    And before long 0 pushes wait for room in "mail"

  Scenario: Producers get through in the order in which they came
    Given the queue "mail" has the settings {"capacity":{"jobs":1,"on_full":"block"}}
    And the job "a" in "mail" with the options {}
    When a producer pushes the job "b" to "mail" and waits up to 15000 ms
    Then before long 1 push waits for room in "mail"
    When I push the job "c" to "mail" without waiting
    Then the call is refused with status 429 and the code "queue_full"
    When a worker fetches from "mail"
    And the worker reports that it is done
    Then the producer's push goes through

  Scenario: A producer that has waited long enough is told when to try again
    Given the queue "mail" has the settings {"capacity":{"jobs":1,"on_full":"block"}}
    And the job "a" in "mail" with the options {}
    When a producer pushes the job "b" to "mail" and waits up to 50 ms
    Then the producer's push is refused with status 429 and the code "queue_full"
    And the refusal says after how many seconds to try again
    And there is no job "b" in "mail"
    And before long 0 pushes wait for room in "mail"

  Scenario: A producer that goes away leaves nothing behind
    Given the queue "mail" has the settings {"capacity":{"jobs":1,"on_full":"block"}}
    And the job "a" in "mail" with the options {}
    When the program "millpond push mail 1 --id b --wait 1m" is started
    Then before long 1 push waits for room in "mail"
    When I run "millpond explain mail"
    Then it prints "1 push waits for room"
    When the program is killed
    Then before long 0 pushes wait for room in "mail"
    When a worker fetches from "mail"
    And the worker reports that it is done
    And I push the job "c" to "mail" without waiting
    Then the job "c" in "mail" is waiting
    And there is no job "b" in "mail"

  Scenario: The command line waits for room, and no longer than it was told
    Given the queue "mail" has the settings {"capacity":{"jobs":1,"on_full":"block"}}
    And the job "a" in "mail" with the options {}
    When I run "millpond push mail 1 --wait 10ms"
    Then the command fails with exit code 1
    And it prints "queue_full"
    When the program "millpond push mail 1 --id b --wait 1m" is started
    Then before long 1 push waits for room in "mail"
    When a worker fetches from "mail"
    And the worker reports that it is done
    Then the program succeeds
    And the job "b" in "mail" is waiting
