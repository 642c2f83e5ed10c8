Feature: Programs in any language do the jobs
  A program is started for each job. It ends with a status, and with 75 it may say more: when to come again, what is rate limited, or what
  it waits for.

  Background:
    Given a running server

  Scenario: A program is told to come later
    Given a program that takes jobs from "mail":
      """
      echo '{"type":"rate_limited","after_ms":3600000}'; exit 75
      """
    And the job "mail-1" in "mail" with the options {}
    Then the history of "mail-1" in "mail" has "rate_limited" 1 time
    And its explanation says "is to be left alone until"

  Scenario: A program waits for a signal and goes on
    Given a program that takes jobs from "orders":
      """
      case $MILLPOND_STEPS in
        *approved*) printf %s "$MILLPOND_STEPS" ;;
        *) echo '{"type":"wait_for_signal","name":"approved","signal":"approved"}'; exit 75 ;;
      esac
      """
    And the job "order-1" in "orders" with the options {}
    Then the job "order-1" in "orders" becomes suspended
    When I signal "approved" to the job "order-1" in "orders"
    Then the job "order-1" in "orders" becomes completed
    And its result is {"approved":{"kind":"signal","value":true}}

  Scenario: A program waits for its child
    Given a program that takes jobs from "orders":
      """
      case $MILLPOND_STEPS in
        *completed*) printf %s "$MILLPOND_STEPS" ;;
        *) echo '{"type":"wait_for_child","name":"resize","child":{"queue":"images","id":"image-1"}}'; exit 75 ;;
      esac
      """
    And the job "order-1" in "orders" with the options {}
    Then the job "order-1" in "orders" becomes waiting-children
    When a worker fetches from "images"
    And the worker reports that it is done with the result "small.png"
    Then the job "order-1" in "orders" becomes completed
    And its result is {"resize":{"kind":"child","id":"image-1","state":"completed","value":"small.png"}}

  Scenario: A program waits for a join and goes on with its results
    Given a program that takes jobs from "orders":
      """
      case $MILLPOND_CHILDREN in
        '') echo '{"type":"wait","children":{"jobs":{"a":{"queue":"images","id":"a","body":1},"b":{"queue":"images","id":"b"}},"join":{"policy":"any"}}}'; exit 75 ;;
        *) printf %s "$MILLPOND_CHILDREN" | sed 's/"id":"[0-9a-f-]\{36\}",//; s/,"error":{[^}]*}//' ;;
      esac
      """
    And the job "order-1" in "orders" with the options {}
    Then the job "order-1" in "orders" becomes waiting-children
    When a worker fetches from "images"
    And the worker reports that it is done with the result {"size":3.0}
    Then the job "order-1" in "orders" becomes completed
    And its result is {"name":"join","state":"completed","total":2,"members":[{"name":"a","state":"completed","queue":"images","id":"a","result":{"size":3.0}},{"name":"b","state":"cancelled","queue":"images","id":"b"}]}

  Scenario: A child that is not understood is an error of the attempt
    Given a program that takes jobs from "orders":
      """
      echo '{"type":"wait","children":{"jobs":{"a":{"queue":"images"}},"join":{"policy":"k_of_n"}}}'; exit 75
      """
    And the job "order-1" in "orders" with the options {"attempts":1}
    Then the job "order-1" in "orders" becomes dead
    And its error is "children.join: k_of_n needs k: how many must complete?"

  Scenario: A program is confined
    Given a program with the options "--limit-file-size 1KiB" that takes jobs from "mail":
      """
      head -c 4096 /dev/zero > big || echo cut at $(wc -c < big)
      """
    And the job "mail-1" in "mail" with the options {}
    Then the job "mail-1" in "mail" becomes completed
    And its result is "cut at 1024"
